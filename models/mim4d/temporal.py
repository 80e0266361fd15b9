"""MIM4D's temporal decoder (arXiv 2403.08760, after HoP, 2304.00967): a frame's volume from the other frames' alone.

Each volume's height is folded into channels. A learned query per cell of the bird's-eye view reads the adjacent frame
(short branch) and, more narrowly, all frames (long branch); what both know becomes the volume.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.convnext import LayerNorm2d
from models.mim4d.deformable import DeformableAttention
from models.shapes import check_shape


@dataclass(frozen=True)
class TemporalSpec:
    """Everything of a temporal decoder but its weights. Raises ValueError for widths that do not divide.

    shape: cells (Y, X). channels, heights: of a volume. frames: the most other frames there may be. width: channels of
    the short branch; the long one has width / reduction. short_heads, long_heads: of their attentions. layers: of each
    branch. points: that a head reads in a frame. short_ffn, long_ffn: hidden channels.
    """

    shape: tuple[int, int]
    channels: int = 32
    heights: int = 5
    frames: int = 2
    width: int = 128
    reduction: int = 2
    short_heads: int = 4
    long_heads: int = 2
    layers: int = 2
    points: int = 4
    short_ffn: int = 256
    long_ffn: int = 128

    def __post_init__(self) -> None:
        if self.width % self.reduction:
            raise ValueError(f"The temporal decoder's width is {self.width}, which {self.reduction} does not divide.")
        for branch, width, heads in (
            ("short", self.width, self.short_heads),
            ("long", self.long_width, self.long_heads),
        ):
            if width % 4 or width % heads:
                raise ValueError(
                    f"The {branch} branch has {width} channels: it must be a multiple of 4, for the sines of its "
                    f"positions, and of its {heads} heads."
                )

    @property
    def long_width(self) -> int:
        """Channels of the long branch."""
        return self.width // self.reduction

    @property
    def folded(self) -> int:
        """Channels of a volume with its height in them."""
        return self.channels * self.heights


class TemporalDecoder(nn.Module):
    """See the module's head. Frames are told apart by their position in the list, not by their time.

    frame_embeds has a row more than there are frames, as the original's; nothing reads the last.
    """

    def __init__(self, spec: TemporalSpec):
        super().__init__()
        self.spec = spec
        self.frame_embeds = nn.Parameter(torch.randn(spec.frames + 1, spec.width))
        self.proj = nn.Sequential(nn.Conv2d(spec.folded, spec.width, 1, bias=False), LayerNorm2d(spec.width))
        self.narrow = nn.Sequential(nn.Linear(spec.width, spec.long_width), nn.LayerNorm(spec.long_width))
        self.short = Branch(spec, spec.width, spec.short_heads, 1, spec.short_ffn)
        self.long = Branch(spec, spec.long_width, spec.long_heads, spec.frames, spec.long_ffn)
        self.out = nn.Sequential(
            nn.Conv2d(spec.width + spec.long_width, spec.folded, 3, padding=1, bias=False), LayerNorm2d(spec.folded)
        )

    def forward(self, volumes: Tensor, present: Tensor | None = None) -> Tensor:
        """The target frame's volume, (B, C, Z, Y, X).

        volumes: (B, F, C, Z, Y, X), the other frames of a clip, moved to the target, ascending in time's index without
        the target; F at most the spec's. present: (B, F), bool, those that exist, of each sample first; None for all.
        Absent ones have no influence whatever stands there; a sample without any gets something finite, which means
        nothing. Raises ValueError for other shapes.
        """
        spec = self.spec
        check_shape("volumes", volumes, None, None, spec.channels, spec.heights, *spec.shape)
        batch, frames = volumes.shape[:2]
        if not 1 <= frames <= spec.frames:
            raise ValueError(f"volumes has {frames} frames: this decoder is of 1 to {spec.frames}")
        if present is None:
            present = torch.ones(batch, frames, dtype=torch.bool, device=volumes.device)
        else:
            check_shape("present", present, batch, frames)
            # Not by a factor 0: what is absent may be large enough to overflow in a norm.
            volumes = volumes.masked_fill(~present[:, :, None, None, None, None], 0)
        shares = present / present.sum(1, keepdim=True).clamp(min=1)

        maps = self.proj(volumes.reshape(batch * frames, spec.folded, *spec.shape))
        values = maps.unflatten(0, (batch, frames)).permute(0, 1, 3, 4, 2)  # (B, F, Y, X, width)
        values = values + self.frame_embeds[:frames, None, None]
        short = self.short(values[:, :1], torch.ones_like(shares[:, :1]))
        long = self.long(self.narrow(values), shares)
        both = torch.cat([short, long], -1).transpose(1, 2).unflatten(2, spec.shape)
        return self.out(both).unflatten(1, (spec.channels, spec.heights))


class Branch(nn.Module):
    """A learned query per cell, refined layer by layer with what it reads in `frames` frames."""

    position: Tensor

    def __init__(self, spec: TemporalSpec, width: int, heads: int, frames: int, ffn: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(math.prod(spec.shape), width))
        self.register_buffer("position", sine_positions(spec.shape, width), persistent=False)
        self.layers = nn.ModuleList(Layer(width, heads, frames, spec.points, ffn) for _ in range(spec.layers))

    def forward(self, values: Tensor, shares: Tensor) -> Tensor:
        """(B, Y * X, C). values: (B, F, Y, X, C); shares: (B, F), of each frame in the mean."""
        queries = self.queries.expand(len(values), -1, -1)
        for layer in self.layers:
            queries = layer(queries, self.position, values, shares)
        return queries


class Layer(nn.Module):
    """Attention and an MLP, each with its residual and then normalised."""

    def __init__(self, width: int, heads: int, frames: int, points: int, ffn: int):
        super().__init__()
        self.attention = DeformableAttention(width, heads, frames, points)
        self.norm1 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, ffn)
        self.fc2 = nn.Linear(ffn, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, queries: Tensor, position: Tensor, values: Tensor, shares: Tensor) -> Tensor:
        queries = self.norm1(queries + self.attention(queries + position, values, shares))
        return self.norm2(queries + self.fc2(F.relu(self.fc1(queries))))


def sine_positions(shape: tuple[int, int], channels: int) -> Tensor:
    """Fixed position embedding (Y * X, channels) of cells row by row: half the channels for y, half for x.

    Cells count from 1, as a share of a full turn at the last; sines and cosines alternate (DETR's, normalised).
    """
    half = channels // 2
    periods = 10000.0 ** (2 * (torch.arange(half, dtype=torch.float64) // 2) / half)
    lines = []
    for side in shape:
        turns = 2 * math.pi * torch.arange(1, side + 1, dtype=torch.float64) / (side + 1e-6)
        angles = turns[:, None] / periods
        lines.append(torch.stack([angles[:, ::2].sin(), angles[:, 1::2].cos()], -1).flatten(1))  # (side, half)
    y, x = lines
    whole = torch.cat([y[:, None].expand(-1, len(x), -1), x[None].expand(len(y), -1, -1)], -1)
    return whole.flatten(0, 1).float()
