"""The BEVFusion sparse encoder: voxel means to a bird's-eye-view map.

Module names are those of the MIT and mmdetection3d checkpoints below their prefix, so that loading one is a renaming of
nothing but the prefix (`checkpoint.py`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.lidar.grid import PADDINGS, encoder_output_shape
from models.lidar.sparse_conv import Sites, SparseConv3d, SparseTensor, SubmanifoldConv3d, Triple
from models.norm import LIKE_SECOND, Norm


@dataclass(frozen=True)
class EncoderSpec:
    """The encoder's levels: residual blocks, and between two levels a convolution with stride 2. Defaults: published.

    widths: channels of the levels; blocks: residual blocks in each; paddings: of the strided convolutions, one fewer.
    out_width: channels of conv_out. Raises ValueError where they do not fit together.
    """

    in_channels: int = 5
    widths: tuple[int, ...] = (16, 32, 64, 128)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    paddings: tuple[Triple, ...] = PADDINGS
    out_width: int = 128
    norm: Norm = LIKE_SECOND

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.blocks) == len(self.paddings) + 1:
            raise ValueError(f"{self}: widths and blocks need one number a level, paddings one between two")

    @property
    def stride(self) -> int:
        """Voxels a cell of the map along x and y."""
        return 2 ** len(self.paddings)

    def output_shape(self, sparse_shape: Triple) -> Triple:
        """(channels, X, Y) of the map of a grid (`VoxelGrid.sparse_shape`)."""
        return encoder_output_shape(sparse_shape, self.out_width, self.paddings)


class SparseEncoder(nn.Module):
    """Levels of sparse residual blocks (published: four, so stride 8 in x and y), the remaining height folded into the
    channels.

    shape: voxels along x, y and z plus one (the published grid 1440 x 1440 x 40 runs as 1440 x 1440 x 41).
    """

    def __init__(self, shape: Triple, spec: EncoderSpec):
        super().__init__()
        self.shape, self.spec = shape, spec
        self.conv_input = _unit(SubmanifoldConv3d(spec.in_channels, spec.widths[0]), spec.widths[0], spec.norm)
        self.encoder_layers = nn.Sequential()
        for level, (width, blocks) in enumerate(zip(spec.widths, spec.blocks)):
            layers: list[nn.Module] = [BasicBlock(width, spec.norm) for _ in range(blocks)]
            if level < len(spec.paddings):
                to = spec.widths[level + 1]
                down = SparseConv3d(width, to, (3, 3, 3), (2, 2, 2), spec.paddings[level])
                layers.append(_unit(down, to, spec.norm))
            self.encoder_layers.add_module(f"encoder_layer{level + 1}", nn.Sequential(*layers))
        last = SparseConv3d(spec.widths[-1], spec.out_width, (1, 1, 3), (1, 1, 2), (0, 0, 0))
        self.conv_out = _unit(last, spec.out_width, spec.norm)

    def forward(self, features: Tensor, coords: Tensor, batch_size: int) -> Tensor:
        """BEV (B, out_width * Z', X', Y') with channel index c * Z' + z, published X' = X / 8.

        features (V, F) voxel means; coords (V, 4) int64 batch, x, y, z, unique, in any order.
        """
        sites, order = Sites.sorted(coords, self.shape, batch_size)
        x = self.conv_input(SparseTensor(features[order], sites))
        dense = self.conv_out(self.encoder_layers(x)).dense()  # (B, C, X, Y, Z)
        return dense.permute(0, 1, 4, 2, 3).flatten(1, 2)


class BasicBlock(nn.Module):
    """Submanifold residual block: conv-BN-ReLU-conv-BN, plus identity, ReLU."""

    def __init__(self, width: int, norm: Norm):
        super().__init__()
        self.conv1 = SubmanifoldConv3d(width, width)
        self.bn1 = norm.over_rows(width)
        self.conv2 = SubmanifoldConv3d(width, width)
        self.bn2 = norm.over_rows(width)

    def forward(self, x: SparseTensor) -> SparseTensor:
        inner = torch.relu_(self.bn1(self.conv1(x).features))
        outer = self.bn2(self.conv2(SparseTensor(inner, x.sites)).features)
        return SparseTensor(torch.relu_(outer + x.features), x.sites)


class _ConvNormReLU(nn.Sequential):
    def forward(self, x: SparseTensor) -> SparseTensor:
        x = self[0](x)
        return SparseTensor(torch.relu_(self[1](x.features)), x.sites)


def _unit(conv: nn.Module, width: int, norm: Norm) -> nn.Sequential:
    return _ConvNormReLU(conv, norm.over_rows(width))
