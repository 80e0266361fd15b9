"""The BEVFusion sparse encoder: voxel means to a bird's-eye-view map.

Module names are those of the MIT and mmdetection3d checkpoints below their prefix, so that loading one is a renaming of
nothing but the prefix (`checkpoint.py`).
"""

import torch
from torch import Tensor, nn

from models.lidar.sparse_conv import Sites, SparseConv3d, SparseTensor, SubmanifoldConv3d, Triple

_NORM_EPS = 1e-3


class SparseEncoder(nn.Module):
    """Four levels of sparse residual blocks, stride 8 in x and y, the remaining height folded into the channels.

    shape: voxels along x, y and z plus one (the published grid 1440 x 1440 x 40 runs as 1440 x 1440 x 41).
    widths: channels of the four levels; out_width: channels of conv_out; blocks: residual blocks a level.
    Published: shape (1440, 1440, 41), widths (16, 32, 64, 128), out_width 128, two blocks.
    """

    def __init__(
        self,
        shape: Triple,
        in_channels: int = 5,
        widths: tuple[int, int, int, int] = (16, 32, 64, 128),
        out_width: int = 128,
        blocks: int = 2,
        norm_momentum: float = 0.01,
    ):
        super().__init__()
        self.shape = shape
        w1, w2, w3, w4 = widths
        self.conv_input = _unit(SubmanifoldConv3d(in_channels, w1), w1, norm_momentum)

        def level(width: int, to: int | None, padding: Triple = (1, 1, 1)) -> nn.Sequential:
            residual = [BasicBlock(width, norm_momentum) for _ in range(blocks)]
            if to is None:
                return nn.Sequential(*residual)
            down = SparseConv3d(width, to, (3, 3, 3), (2, 2, 2), padding)
            return nn.Sequential(*residual, _unit(down, to, norm_momentum))

        self.encoder_layers = nn.Sequential()
        self.encoder_layers.add_module("encoder_layer1", level(w1, w2))
        self.encoder_layers.add_module("encoder_layer2", level(w2, w3))
        self.encoder_layers.add_module("encoder_layer3", level(w3, w4, (1, 1, 0)))
        self.encoder_layers.add_module("encoder_layer4", level(w4, None))
        self.conv_out = _unit(SparseConv3d(w4, out_width, (1, 1, 3), (1, 1, 2), (0, 0, 0)), out_width, norm_momentum)

    def forward(self, features: Tensor, coords: Tensor, batch_size: int) -> Tensor:
        """BEV (B, out_width * Z', X / 8, Y / 8) with channel index c * Z' + z.

        features (V, F) voxel means; coords (V, 4) int64 batch, x, y, z, unique, in any order.
        """
        sites, order = Sites.sorted(coords, self.shape, batch_size)
        x = self.conv_input(SparseTensor(features[order], sites))
        dense = self.conv_out(self.encoder_layers(x)).dense()  # (B, C, X, Y, Z)
        return dense.permute(0, 1, 4, 2, 3).flatten(1, 2)


class BasicBlock(nn.Module):
    """Submanifold residual block: conv-BN-ReLU-conv-BN, plus identity, ReLU."""

    def __init__(self, width: int, norm_momentum: float):
        super().__init__()
        self.conv1 = SubmanifoldConv3d(width, width)
        self.bn1 = _norm(width, norm_momentum)
        self.conv2 = SubmanifoldConv3d(width, width)
        self.bn2 = _norm(width, norm_momentum)

    def forward(self, x: SparseTensor) -> SparseTensor:
        inner = torch.relu_(self.bn1(self.conv1(x).features))
        outer = self.bn2(self.conv2(SparseTensor(inner, x.sites)).features)
        return SparseTensor(torch.relu_(outer + x.features), x.sites)


class _ConvNormReLU(nn.Sequential):
    def forward(self, x: SparseTensor) -> SparseTensor:
        x = self[0](x)
        return SparseTensor(torch.relu_(self[1](x.features)), x.sites)


def _unit(conv: nn.Module, width: int, norm_momentum: float) -> nn.Sequential:
    return _ConvNormReLU(conv, _norm(width, norm_momentum))


def _norm(width: int, momentum: float) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(width, eps=_NORM_EPS, momentum=momentum)
