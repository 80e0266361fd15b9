"""A multi-view Swin whose windows never shift, with attention that can be confined to groups of tokens.

GeoMIM (arXiv 2303.11325) pretrains it in one pass over two complementary halves of the image: `groups` says which
half a token belongs to, and in a window only tokens of the same group see each other. BEVDet-style detectors run the
same network without groups. Views are images: cameras meet in the decoder, not here.

Inside, maps are channels-last: (M, H, W, C), M = batch x cameras.
"""

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.backbone import Backbone
from models.backbones.config import SwinConfig
from models.backbones.window_attention import WindowAttention, Windows
from models.initialise import init_linear
from models.layers import DropPath, Mlp, ModuleList, run_block
from models.masking import upsample_groups

_BLOCK = re.compile(r"stages\.(\d+)\.(?:blocks\.(\d+)|(downsample))\.")
_STEM = ("patch_embed.", "absolute_pos_embed")


class Swin(Backbone):
    """Four stages of window-attention blocks, patch merging between them.

    Args:
        out_indices: the stages whose maps are layer-normalised.
        drop_path: rate of stochastic depth at the last block, rising linearly from 0 at the first.
        padding_visible: without groups, tokens attend to the zero padding of incomplete windows, as in the released
            detectors; with groups the padding belongs to none and is never seen.

    The stored absolute position embedding is resized (bicubic) to any input.
    """

    def __init__(
        self,
        config: SwinConfig,
        out_indices: tuple[int, ...] = (2, 3),
        drop_path: float = 0.0,
        padding_visible: bool = True,
    ):
        super().__init__()
        self.channels, self.strides, self.depths = config.channels, config.strides, config.depths
        self.out_indices = out_indices
        self.patch_embed = PatchEmbed(config.patch_size, config.embed_dim)
        self.absolute_pos_embed = nn.Parameter(
            torch.zeros(1, config.embed_dim, config.pretrain_grid, config.pretrain_grid)
        )
        nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)

        rates = iter(torch.linspace(0, drop_path, sum(self.depths)).tolist())
        self.stages: ModuleList[Stage] = ModuleList()
        for channels, depth, heads, window in zip(self.channels, self.depths, config.num_heads, config.window_sizes):
            blocks = [
                SwinBlock(channels, heads, window, config.mlp_ratio, next(rates), padding_visible) for _ in range(depth)
            ]
            last = len(self.stages) == len(self.depths) - 1
            self.stages.append(Stage(blocks, None if last else PatchMerging(channels)))
        for stage in out_indices:
            self.add_module(f"norm{stage}", nn.LayerNorm(self.channels[stage]))
        init_linear(self)

    def forward(self, images: Tensor, groups: Tensor | None = None, stop_at: int | None = None) -> list[Tensor]:
        """Maps of the stages up to `stop_at` (all if None), (M, C_i, H/s_i, W/s_i).

        images: (M, 3, H, W). groups: integer (1 or M, h, w), the group of every cell of the coarsest map, or None.
        """
        maps = []
        x = self.patch_embed(images)
        x = x + self.position_embedding(x.shape[1], x.shape[2]).to(x.dtype)
        for number, stage in enumerate(self.stages):
            stage_groups = None if groups is None else upsample_groups(groups, x.shape[1], x.shape[2])
            windows = None
            for block in stage.blocks:
                windows = windows or block.attn.windows(x, stage_groups)  # the same for all blocks of a stage
                x = run_block(block, self.checkpointing, x, windows)
            out = self.get_submodule(f"norm{number}")(x) if number in self.out_indices else x
            maps.append(out.permute(0, 3, 1, 2))
            if number == stop_at:
                break
            if stage.downsample is not None:
                x = stage.downsample(x)
        return maps

    def position_embedding(self, height: int, width: int) -> Tensor:
        """The absolute position embedding at a token grid, (1, height, width, C)."""
        resized = F.interpolate(self.absolute_pos_embed, (height, width), mode="bicubic", align_corners=False)
        return resized.permute(0, 2, 3, 1)

    def layer_of(self, name: str) -> int:
        """See `Backbone.layer_of`."""
        if name.startswith(_STEM):
            return 0
        if found := _BLOCK.match(name):
            stage, block, merges = found.groups()
            first = 1 + sum(self.depths[: int(stage)])
            return first + (self.depths[int(stage)] if merges else int(block))
        return sum(self.depths) + 1


class Stage(nn.Module):
    def __init__(self, blocks: "list[SwinBlock]", downsample: nn.Module | None):
        super().__init__()
        self.blocks = ModuleList(blocks)
        self.downsample = downsample


class PatchEmbed(nn.Module):
    """Non-overlapping patches: images (M, 3, H, W) -> (M, H/p, W/p, C). Sizes are padded up, bottom and right."""

    def __init__(self, patch_size: int, embed_dim: int):
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Conv2d(3, embed_dim, patch_size, patch_size)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        p = self.patch_size
        if height % p or width % p:
            images = F.pad(images, (0, -width % p, 0, -height % p))
        return self.norm(self.projection(images).permute(0, 2, 3, 1).contiguous())


class PatchMerging(nn.Module):
    """2x2 neighbours to one token of twice the channels: (M, H, W, C) -> (M, ceil(H/2), ceil(W/2), 2C).

    The 4C channels are ordered channel-major (c*4 + k, k = 00, 01, 10, 11), as in mmdet's checkpoints.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        m, height, width, channels = x.shape
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.unflatten(1, (-1, 2)).unflatten(3, (-1, 2))  # (M, H/2, 2, W/2, 2, C)
        x = x.permute(0, 1, 3, 5, 2, 4).reshape(m, x.shape[1], x.shape[3], 4 * channels)
        return self.reduction(self.norm(x))


class SwinBlock(nn.Module):
    """Pre-norm window attention and MLP on a map (M, H, W, C)."""

    def __init__(
        self, dim: int, num_heads: int, window: int, mlp_ratio: float, drop_path: float, padding_visible: bool
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window, padding_visible)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), windows))
        return x + self.drop_path(self.mlp(self.norm2(x)))
