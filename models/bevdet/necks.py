"""BEVDet's feature pyramid (arXiv 2112.11790): a coarse map brought to a finer one's size and fused with it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.norm import LIKE_TORCH, Norm


@dataclass(frozen=True)
class FpnSpec:
    """out: channels of the result. inputs: which of the maps are the fine and the coarse one.

    scale: how many times finer the fine map is. extra_scale: how many times finer than that the result is (1: its size,
    and no further layers).
    """

    out: int
    inputs: tuple[int, int] = (0, 1)
    scale: int = 2
    extra_scale: int = 1


class FpnLss(nn.Module):
    """Upsample the coarse map, concatenate it to the fine one, two 3x3 convolutions, and perhaps one more upsampling.

    channels: of the fine and the coarse map. Upsampling is bilinear with aligned corners, as in the released detectors.
    Layers have BEVDet's names and places in `conv` and `up2`, so that its checkpoints load.
    """

    def __init__(self, channels: tuple[int, int], spec: FpnSpec, norm: Norm = LIKE_TORCH):
        super().__init__()
        self.up = nn.Upsample(scale_factor=spec.scale, mode="bilinear", align_corners=True)
        out, extra_scale = spec.out, spec.extra_scale
        width = out if extra_scale == 1 else 2 * out
        self.conv = nn.Sequential(
            nn.Conv2d(sum(channels), width, 3, padding=1, bias=False),
            norm.over_maps(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            norm.over_maps(width),
            nn.ReLU(inplace=True),
        )
        self.up2 = None
        if extra_scale > 1:
            self.up2 = nn.Sequential(
                nn.Upsample(scale_factor=extra_scale, mode="bilinear", align_corners=True),
                nn.Conv2d(width, out, 3, padding=1, bias=False),
                norm.over_maps(out),
                nn.ReLU(inplace=True),
                nn.Conv2d(out, out, 1),
            )

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """fine: (B, C0, H, W); coarse: (B, C1, H/scale, W/scale). Returns (B, out, extra_scale H, extra_scale W)."""
        x = self.conv(torch.cat([fine, self.up(coarse)], 1))
        return x if self.up2 is None else self.up2(x)
