"""GeoMIM's decoder: from half an image's tokens to a semantic and a geometry map of the whole image."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.cameras import VECTOR
from models.checkpointing import Checkpointing
from models.geomim.blocks import Block, CrossViewBlock
from models.initialise import init_linear
from models.layers import Mlp, ModuleList, run_block


class DecoderMaps(NamedTuple):
    semantic: Tensor  # (2M, C, h, w), first the M reconstructions from group 0, then those from group 1
    geometry: Tensor  # (2M, C, h, w)


@dataclass(frozen=True)
class DecoderSpec:
    """Everything of a decoder but its weights.

    width: channels. depth: blocks of the semantic branch, a multiple of 4. pos_grid: side of the stored sin-cos
    position embedding (pretraining image size / 32). cross_view, geometry_branch, camera_aware: the paper's ablations;
    without a geometry branch both maps are the semantic one.
    """

    width: int = 512
    num_heads: int = 16
    depth: int = 8
    pos_grid: int = 7
    cross_view: bool = True
    geometry_branch: bool = True
    camera_aware: bool = True


class Decoder(nn.Module):
    """Two branches over mask and image tokens at stride 16.

    The semantic branch is `depth` blocks with cross-view attention after a quarter and three quarters of them. The
    geometry branch leaves it half way, is gated by the camera's parameters, and has depth / 2 blocks of its own with
    cross-view attention half way through.

    Args:
        in_dim: channels of the encoder's fused map.
    """

    checkpointing: Checkpointing = "mlp"
    pos_embed: Tensor  # (1, width, pos_grid, pos_grid)

    def __init__(self, in_dim: int, spec: DecoderSpec):
        super().__init__()
        if spec.depth % 4:
            raise ValueError(f"The decoder's depth is {spec.depth}: it must be a multiple of 4.")
        dim, num_heads, depth, cross_view = spec.width, spec.num_heads, spec.depth, spec.cross_view
        self.embed = nn.Linear(in_dim, dim)
        init_linear(self.embed)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.register_buffer("pos_embed", sincos_embedding(dim, spec.pos_grid))

        def cross_views(count: int) -> "ModuleList[CrossViewBlock]":
            return ModuleList(CrossViewBlock(dim, num_heads) for _ in range(count if cross_view else 0))

        self.blocks = ModuleList(Block(dim, num_heads) for _ in range(depth))
        self.cross_blocks = cross_views(2)
        self.norm = nn.LayerNorm(dim)
        self.cross_after = (depth // 4 - 1, 3 * depth // 4 - 1) if cross_view else ()
        self.fork_after = depth // 2 - 1

        self.geometry_branch = spec.geometry_branch
        if spec.geometry_branch:
            self.camera_gate = CameraGate(dim) if spec.camera_aware else None
            self.geometry_blocks = ModuleList(Block(dim, num_heads) for _ in range(depth // 2))
            self.geometry_cross_blocks = cross_views(1)
            self.geometry_norm = nn.LayerNorm(dim)
            self.geometry_cross_after = (depth // 4 - 1,) if cross_view else ()

    def forward(
        self, fused: Tensor, groups: Tensor, camera: Tensor | None, views: int, halves: tuple[int, ...] = (0, 1)
    ) -> DecoderMaps:
        """fused: (M, h, w, in_dim), M = batch x views; groups: (1 or M, h, w); camera: (M, 22), where a gate asks.

        halves: the groups from which is reconstructed, both or one.
        """
        tokens, count = self.embed(fused), len(halves)
        visible = torch.cat([(groups == half).expand(tokens.shape[:3]) for half in halves]).unsqueeze(-1)
        x = torch.where(visible, tokens.repeat(count, 1, 1, 1), self.mask_token.unsqueeze(0).to(tokens.dtype))
        x = x + self.position_embedding(x.shape[1], x.shape[2]).to(x.dtype)

        semantic, fork = self._run(x, views, self.blocks, self.cross_blocks, self.cross_after, self.fork_after)
        semantic = self.norm(semantic).permute(0, 3, 1, 2)
        if not self.geometry_branch:
            return DecoderMaps(semantic, semantic)
        if self.camera_gate is not None:
            if camera is None:
                raise ValueError("the geometry branch's gate asks for the cameras")
            fork = self.camera_gate(fork, camera.repeat(count, 1))
        blocks, crosses = self.geometry_blocks, self.geometry_cross_blocks
        geometry, _ = self._run(fork, views, blocks, crosses, self.geometry_cross_after)
        return DecoderMaps(semantic, self.geometry_norm(geometry).permute(0, 3, 1, 2))

    def _run(
        self,
        x: Tensor,
        views: int,
        blocks: Iterable[Block],
        cross_blocks: Iterable[CrossViewBlock],
        cross_after: tuple[int, ...],
        fork_after: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """A branch of x (M, h, w, width), and what it has behind block `fork_after`."""
        fork = x
        crosses = iter(cross_blocks)
        for i, block in enumerate(blocks):
            x = run_block(block, self.checkpointing, x, views)
            if i in cross_after:
                x = run_block(next(crosses), self.checkpointing, x, views)
            if i == fork_after:
                fork = x
        return x, fork

    def position_embedding(self, height: int, width: int) -> Tensor:
        resized = F.interpolate(self.pos_embed, (height, width), mode="bicubic", align_corners=False)
        return resized.permute(0, 2, 3, 1)


class CameraGate(nn.Module):
    """Camera-aware squeeze-and-excitation: one gate per channel from the camera's parameters."""

    def __init__(self, dim: int):
        super().__init__()
        self.bn = nn.BatchNorm1d(VECTOR)
        self.mlp = Mlp(VECTOR, dim, dim)
        self.reduce = nn.Linear(dim, dim)
        self.expand = nn.Linear(dim, dim)
        init_linear(self)

    def forward(self, x: Tensor, camera: Tensor) -> Tensor:
        """x: (M, H, W, C); camera: (M, 22), see `Cameras.vector`: as precise as the norm's weights, also in bf16."""
        normal = self.bn(camera.to(self.bn.weight.dtype))
        excitation = self.expand(F.relu(self.reduce(self.mlp(normal))))
        return x * excitation.sigmoid()[:, None, None, :]


def sincos_embedding(dim: int, grid: int) -> Tensor:
    """Fixed 2D sine-cosine position embedding (1, dim, grid, grid): half the channels for x, half for y."""
    if dim % 4:
        raise ValueError(f"The decoder's width is {dim}: it must be a multiple of 4.")
    frequencies = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies  # (grid, dim / 4)
    line = torch.cat([angles.sin(), angles.cos()], 1).T  # (dim / 2, grid)
    x = line[:, None, :].expand(-1, grid, -1)
    y = line[:, :, None].expand(-1, -1, grid)
    return torch.cat([x, y])[None].float().contiguous()
