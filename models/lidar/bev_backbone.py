"""The dense part of the LiDAR detector: SECOND (Sensors 2018) and the pyramid neck that mmdet3d calls SECONDFPN.

Module names are those of the MIT and mmdetection3d checkpoints below their prefixes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.initialise import kaiming_init
from models.norm import LIKE_SECOND, Norm


@dataclass(frozen=True)
class BevBackboneSpec:
    """One number a level in every tuple. The defaults are the published teacher's.

    widths: channels of SECOND's blocks; layers: further convolutions in each; strides: of their first convolutions.
    neck_widths: channels of SECONDFPN's branches; upsamples: how much finer each makes its level, below 1 coarser.
    conv_if_same: a branch that upsamples by 1 is a convolution (`use_conv_for_no_stride`), not a transposed one.
    Raises ValueError where the tuples or the branches' sizes do not fit together.
    """

    in_channels: int = 256
    widths: tuple[int, ...] = (128, 256)
    layers: tuple[int, ...] = (5, 5)
    strides: tuple[int, ...] = (1, 2)
    neck_widths: tuple[int, ...] = (256, 256)
    upsamples: tuple[float, ...] = (1, 2)
    conv_if_same: bool = True
    norm: Norm = LIKE_SECOND
    neck_norm: Norm = LIKE_SECOND

    def __post_init__(self) -> None:
        levels = {len(self.widths), len(self.layers), len(self.strides), len(self.neck_widths), len(self.upsamples)}
        if len(levels) != 1 or 0 in levels:
            raise ValueError(f"{self}: all must have one number a level")
        if min(self.strides) < 1:
            raise ValueError(f"strides {self.strides} must be 1 at least")
        factors = [max(up, 1 / up) if up > 0 else math.nan for up in self.upsamples]
        if not all(factor > 0 and math.isclose(factor, round(factor)) for factor in factors):
            raise ValueError(f"upsamples {self.upsamples} must be whole numbers, or one over them")
        scales = [up / math.prod(self.strides[: level + 1]) for level, up in enumerate(self.upsamples)]
        if not all(math.isclose(scale, scales[0]) for scale in scales):
            raise ValueError(f"strides {self.strides} and upsamples {self.upsamples} give branches of unequal sizes")

    @property
    def out_channels(self) -> int:
        return sum(self.neck_widths)

    @property
    def scale(self) -> float:
        """How much finer the result is than the encoder's map."""
        return self.upsamples[0] / self.strides[0]


class BEVBackbone(nn.Module):
    """SECOND and SECONDFPN: (B, in_channels, X, Y) -> (B, out_channels, X * scale, Y * scale)."""

    def __init__(self, spec: BevBackboneSpec):
        super().__init__()
        self.backbone, self.neck = _Second(spec), _SecondFpn(spec)
        kaiming_init(self)

    def forward(self, bev: Tensor) -> Tensor:
        return self.neck(self.backbone(bev))


class _Second(nn.Module):
    """(B, C, X, Y) -> every block's map."""

    def __init__(self, spec: BevBackboneSpec):
        super().__init__()
        self.blocks = nn.ModuleList()
        channels = spec.in_channels
        for width, layers, stride in zip(spec.widths, spec.layers, spec.strides):
            block = []
            for step in (stride, *[1] * layers):
                block += [nn.Conv2d(channels, width, 3, step, padding=1, bias=False), spec.norm.over_maps(width)]
                block.append(nn.ReLU(inplace=True))
                channels = width
            self.blocks.append(nn.Sequential(*block))

    def forward(self, bev: Tensor) -> list[Tensor]:
        maps = []
        for block in self.blocks:
            bev = block(bev)
            maps.append(bev)
        return maps


class _SecondFpn(nn.Module):
    """The blocks' maps, brought to one size and concatenated."""

    def __init__(self, spec: BevBackboneSpec):
        super().__init__()
        self.deblocks = nn.ModuleList()
        resize: nn.Conv2d | nn.ConvTranspose2d
        for channels, width, upsample in zip(spec.widths, spec.neck_widths, spec.upsamples):
            if upsample < 1 or (upsample == 1 and spec.conv_if_same):
                stride = round(1 / upsample)
                resize = nn.Conv2d(channels, width, stride, stride, bias=False)
            else:
                stride = int(upsample)
                resize = nn.ConvTranspose2d(channels, width, stride, stride, bias=False)
            self.deblocks.append(nn.Sequential(resize, spec.neck_norm.over_maps(width), nn.ReLU(inplace=True)))

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat([deblock(bev) for deblock, bev in zip(self.deblocks, maps)], 1)
