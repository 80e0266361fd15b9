"""A multi-view Swin whose windows never shift, with attention that can be confined to groups of tokens.

GeoMIM (arXiv 2303.11325) pretrains it in one pass over two complementary halves of the image: `groups` says which
half a token belongs to, and in a window only tokens of the same group see each other. BEVDet-style detectors run the
same network without groups. Views are images: cameras meet in the decoder, not here.

Inside, maps are channels-last: (M, H, W, C), M = batch x cameras.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.window_attention import WindowAttention, Windows


@dataclass(frozen=True)
class SwinSpec:
    """Everything of a Swin but its weights, see there."""

    embed_dim: int = 128
    depths: tuple[int, ...] = (2, 2, 18, 2)
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    window_sizes: tuple[int, ...] = (16, 16, 16, 8)
    mlp_ratio: float = 4.0
    pretrain_grid: int = 56

    def build(self) -> "Swin":
        """The network, with weights drawn from torch's global generator."""
        return Swin(
            self.embed_dim,
            self.depths,
            self.num_heads,
            self.window_sizes,
            mlp_ratio=self.mlp_ratio,
            pretrain_grid=self.pretrain_grid,
        )


class Swin(nn.Module):
    """Four stages of window-attention blocks, patch merging between them.

    Args:
        embed_dim: channels of stage 1; every later stage doubles them.
        depths, num_heads, window_sizes: one number a stage. A window is square, in tokens.
        pretrain_grid: side of the stored absolute position embedding, resized (bicubic) to any input.
        drop_path: rate of stochastic depth at the last block, rising linearly from 0 at the first.
        padding_visible: without groups, tokens attend to the zero padding of incomplete windows, as in the released
            detectors; with groups the padding belongs to none and is never seen.
        checkpointing: keep only the blocks' inputs for the backward pass, which then computes each block again.
    """

    def __init__(
        self,
        embed_dim: int = 128,
        depths: tuple[int, ...] = (2, 2, 18, 2),
        num_heads: tuple[int, ...] = (4, 8, 16, 32),
        window_sizes: tuple[int, ...] = (16, 16, 16, 8),
        patch_size: int = 4,
        mlp_ratio: float = 4.0,
        pretrain_grid: int = 56,
        drop_path: float = 0.0,
        padding_visible: bool = True,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.checkpointing = checkpointing
        self.channels = tuple(embed_dim * 2**i for i in range(len(depths)))
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, embed_dim, pretrain_grid, pretrain_grid))
        nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)

        rates = torch.linspace(0, drop_path, sum(depths)).tolist()
        self.stages = nn.ModuleList()
        for i, depth in enumerate(depths):
            blocks = [
                SwinBlock(self.channels[i], num_heads[i], window_sizes[i], mlp_ratio, rates.pop(0), padding_visible)
                for _ in range(depth)
            ]
            last = i == len(depths) - 1
            self.stages.append(Stage(blocks, None if last else PatchMerging(self.channels[i])))
        self.norm2 = nn.LayerNorm(self.channels[2])
        self.norm3 = nn.LayerNorm(self.channels[3])

    def forward(self, images: Tensor, groups: Tensor | None = None) -> list[Tensor]:
        """Maps of the four stages, (M, C_i, H/2^(i+2), W/2^(i+2)); the last two are layer-normalised.

        images: (M, 3, H, W). groups: integer (1 or M, H/32, W/32), the group of every 32x32 pixel cell, or None.
        """
        return list(self.maps(images, groups))

    def maps(self, images: Tensor, groups: Tensor | None = None) -> Iterator[Tensor]:
        """What `forward` returns one by one: no stage is computed before its map is asked for."""
        x = self.patch_embed(images)
        x = x + self.position_embedding(x.shape[1], x.shape[2]).to(x.dtype)
        for i, stage in enumerate(self.stages):
            stage_groups = None if groups is None else upsample_groups(groups, x.shape[1], x.shape[2])
            windows = stage.blocks[0].attn.windows(x, stage_groups)
            for block in stage.blocks:
                x = run_block(block, self.checkpointing, x, windows)
            norm = {2: self.norm2, 3: self.norm3}.get(i, nn.Identity())
            yield norm(x).permute(0, 3, 1, 2)
            if stage.downsample is not None:
                x = stage.downsample(x)

    def position_embedding(self, height: int, width: int) -> Tensor:
        """The absolute position embedding at a token grid, (1, height, width, C)."""
        resized = F.interpolate(self.absolute_pos_embed, (height, width), mode="bicubic", align_corners=False)
        return resized.permute(0, 2, 3, 1)


class Stage(nn.Module):
    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
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


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, out: int | None = None):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim if out is None else out)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        if not torch.is_grad_enabled():
            return self._project(hidden)
        # The activation is as large as all else a block keeps, and cheap: the backward pass makes it again.
        return checkpoint(self._project, hidden, use_reentrant=False, preserve_rng_state=False)

    def _project(self, hidden: Tensor) -> Tensor:
        return self.fc2(F.gelu(hidden))


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for whole images, and scales the kept ones to the same mean."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.rate
        return x * keep / (1 - self.rate)


def run_block(block: nn.Module, checkpointing: bool, *inputs: Tensor | Windows | int) -> Tensor:
    """The block's output; with checkpointing nothing inside it is kept for the backward pass."""
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)


def upsample_groups(groups: Tensor, height: int, width: int) -> Tensor:
    """Cell groups (1 or M, h, w) at a token grid that they divide: (1 or M, height, width)."""
    scale_h, scale_w = height // groups.shape[1], width // groups.shape[2]
    return groups.repeat_interleave(scale_h, 1).repeat_interleave(scale_w, 2)
