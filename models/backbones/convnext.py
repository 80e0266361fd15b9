"""ConvNeXt (arXiv 2201.03545), and the same on the visible part of an image (SparK, arXiv 2301.03580).

Its names are timm's, but for the norms of the maps that are handed on.
"""

import re

import torch
from torch import Tensor, nn

from models.backbones.backbone import Backbone
from models.backbones.config import ConvNeXtConfig
from models.layers import DropPath, Mlp, ModuleList, run_block
from models.masking import upsample_groups

EPS = 1e-6  # of its norms
LAYER_SCALE = 1e-6  # with which a block's branch begins
_BLOCK = re.compile(r"stages\.(\d+)\.(?:blocks\.(\d+)|downsample)\.")


class ConvNeXt(Backbone):
    """Four stages of 7x7 depthwise convolutions and MLPs, 2x2 convolutions between them.

    Args:
        out_indices: the stages whose maps are layer-normalised.
        drop_path: rate of stochastic depth at the last block, rising linearly from 0 at the first.
    """

    def __init__(
        self,
        config: ConvNeXtConfig,
        out_indices: tuple[int, ...] = (2, 3),
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.channels, self.strides, self.depths = config.channels, config.strides, config.depths
        self.out_indices = out_indices
        self.stem = nn.Sequential(nn.Conv2d(3, self.channels[0], 4, 4), LayerNorm2d(self.channels[0]))
        rates = torch.linspace(0, drop_path, sum(self.depths), device="cpu").split(self.depths)
        below = (None, *self.channels[:-1])
        self.stages = ModuleList(map(Stage, below, self.channels, (rate.tolist() for rate in rates)))
        for stage in out_indices:
            self.add_module(f"norm{stage}", LayerNorm2d(self.channels[stage]))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor, visible: Tensor | None = None, stop_at: int | None = None) -> list[Tensor]:
        """Maps of the stages up to `stop_at` (all if None), (M, C_i, H/s_i, W/s_i).

        images: (M, 3, H, W), H and W multiples of 32. visible: bool (1 or M, H/32, W/32), the cells that are seen, or
        None for all. What is hidden is zero in every map and reaches no visible cell: a sparse network, computed
        densely.
        """
        maps = []
        x = masked(self.stem(images), visible)
        for number, stage in enumerate(self.stages):
            if stage.downsample is not None:
                x = masked(stage.downsample(x), visible)
            for block in stage.blocks:
                x = run_block(block, self.checkpointing, x, visible)
            out = self.get_submodule(f"norm{number}")(x) if number in self.out_indices else x
            maps.append(masked(out, visible))
            if number == stop_at:
                break
        return maps

    def layer_of(self, name: str) -> int:
        """See `Backbone.layer_of`."""
        if name.startswith("stem."):
            return 0
        if found := _BLOCK.match(name):
            stage, block = found.groups()
            return 1 + sum(self.depths[: int(stage)]) + int(block or 0)
        return sum(self.depths) + 1


class Stage(nn.Module):
    """Blocks, and what halves the map before them where channels say of how many it has."""

    def __init__(self, channels_in: int | None, channels: int, drop_path: list[float]):
        super().__init__()
        self.downsample = None
        if channels_in is not None:
            self.downsample = nn.Sequential(LayerNorm2d(channels_in), nn.Conv2d(channels_in, channels, 2, 2))
        self.blocks = ModuleList(Block(channels, rate) for rate in drop_path)


class Block(nn.Module):
    """Depthwise convolution, norm and MLP on a map (M, C, H, W); the branch is scaled channel by channel."""

    def __init__(self, channels: int, drop_path: float):
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, EPS)
        self.mlp = Mlp(channels, 4 * channels)
        self.gamma = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """x: 0 where it is hidden, as the result is. Behind the convolution all is cell by cell, so that one mask at
        the branch's end stands for one behind every layer."""
        branch = self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1))) * self.gamma
        return x + self.drop_path(masked(branch.permute(0, 3, 1, 2), visible))


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of every cell of a map (M, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__(channels, EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def masked(x: Tensor, visible: Tensor | None) -> Tensor:
    """A map (M, C, H, W) with 0 where it is hidden. visible: bool (1 or M, h, w), of cells that divide it; or None."""
    return x if visible is None else x * upsample_groups(visible, *x.shape[-2:]).unsqueeze(1)
