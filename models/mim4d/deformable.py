"""Deformable attention (arXiv 2010.04159) of a bird's-eye-view's cells to the same view in other frames."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.shapes import check_shape


class DeformableAttention(nn.Module):
    """Each cell's query reads a few points of each frame around its own cell, and takes their weighted mean.

    Where it reads, and with which weights, follows from the query alone; each frame has weights of its own, which add
    up to 1 over its points, and the frames' results are averaged.

    Args:
        width: channels of queries and values. heads: which share them. frames: the most there may be.
        points: that a head reads in a frame.
    """

    def __init__(self, width: int, heads: int, frames: int, points: int):
        super().__init__()
        self.heads, self.frames, self.points = heads, frames, points
        reads = heads * frames * points
        self.offsets = nn.Linear(width, 2 * reads)  # (heads, frames, points, (x, y)), cells
        self.weights = nn.Linear(width, reads)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self._begin()

    def _begin(self) -> None:
        """A head looks one way, with each point a step farther than the last, and at all points alike."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ways = torch.stack([angles.cos(), angles.sin()], -1)
        ways = ways / ways.abs().amax(-1, keepdim=True)  # to the edge of a square
        steps = torch.arange(1, self.points + 1)
        offsets = ways[:, None, None] * steps[:, None]  # (heads, 1, points, 2)
        with torch.no_grad():
            self.offsets.bias.copy_(offsets.expand(-1, self.frames, -1, -1).flatten())
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.weights.bias)
        for layer in (self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, values: Tensor, shares: Tensor) -> Tensor:
        """(B, Y * X, C), without the residual.

        queries: (B, Y * X, C), row by row, what tells them where they are added. values: (B, F, Y, X, C), F at most
        `frames`. shares: (B, F), of each frame in the mean. Raises ValueError for other shapes.
        """
        check_shape("queries", queries, None, None, self.value.in_features)
        check_shape("values", values, len(queries), None, None, None, queries.shape[-1])
        batch, frames, height, width = values.shape[:4]
        check_shape("queries", queries, batch, height * width, None)
        check_shape("shares", shares, batch, frames)
        if not 1 <= frames <= self.frames:
            raise ValueError(f"values has {frames} frames: this attention is of 1 to {self.frames}")
        places, weights = self._reads(queries, height, width)
        places = places[:, :, :frames].flatten(0, 2)  # (B heads F, Q, points, 2)
        weights = weights[:, :, :frames] * shares.to(weights.dtype)[:, None, :, None, None]
        maps = self.value(values).unflatten(-1, (self.heads, -1))  # (B, F, Y, X, heads, C / heads)
        maps = maps.permute(0, 4, 1, 5, 2, 3).flatten(0, 2).to(places.dtype)
        read = F.grid_sample(maps, places, mode="bilinear", padding_mode="zeros", align_corners=False)
        weighted = (read * weights.flatten(0, 2).unsqueeze(1)).sum(-1)  # (B heads F, C / heads, Q)
        mean = weighted.unflatten(0, (batch, self.heads, frames)).sum(2)  # (B, heads, C / heads, Q)
        return self.out(mean.flatten(1, 2).transpose(1, 2))

    def _reads(self, queries: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Where each query reads, -1 to 1 between the map's edges, (B, heads, frames, Q, points, 2), and with which
        weights, (B, heads, frames, Q, points).

        In the weights' own precision under autocast, too: a place in bf16 would be off by half a cell in 180.
        """
        with torch.autocast(queries.device.type, enabled=False):
            queries = queries.to(self.offsets.weight.dtype)
            per_read = (self.heads, self.frames, self.points)
            offsets = self.offsets(queries).unflatten(-1, (*per_read, 2))  # (B, Q, heads, frames, points, 2), cells
            weights = self.weights(queries).unflatten(-1, per_read).softmax(-1)
            y, x = torch.meshgrid(*(torch.arange(n, device=queries.device) for n in (height, width)), indexing="ij")
            cells = torch.stack([x, y], -1).reshape(-1, 1, 1, 1, 2).to(offsets)
            across, down = (2 * (cells + offsets) + 1).unbind(-1)
            places = torch.stack([across / width, down / height], -1) - 1
            return places.permute(0, 2, 3, 1, 4, 5), weights.permute(0, 2, 3, 1, 4)
