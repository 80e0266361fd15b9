"""Lift-splat (arXiv 2008.05711): camera features to a bird's-eye view, through a depth distribution per pixel.

A feature pixel stands for D points along its ray. Each falls into a cell of the BEV grid, or into none (-1), and gives
it the pixel's context weighted with the point's probability. Written as a sparse matrix (cells x pixels) times the
context (pixels x channels), the frustum of features (B, N, D, H, W, C) never exists.

Frames are the caller's: a map may lie in the LiDAR frame (GeoMIM, laid out [X, Y]) or in the ego frame (BEVDet,
[Y, X]: `order="yx"`), and be augmented. Which cells the points fall into is data (see models/rays.py): the network is
handed the plan of its splat.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.shapes import check_shape


@dataclass(frozen=True)
class BevGrid:
    """Cells of a map or a volume: x and y in [low, high) m in steps of `cell` m, z in [low, high) m in equal slabs."""

    x: tuple[float, float]
    y: tuple[float, float]
    z: tuple[float, float]
    cell: float
    heights: int = 1  # slabs

    @property
    def shape(self) -> tuple[int, int]:
        """(cells along x, cells along y)."""
        return round((self.x[1] - self.x[0]) / self.cell), round((self.y[1] - self.y[0]) / self.cell)

    @property
    def num_cells(self) -> int:
        """Of all slabs."""
        nx, ny = self.shape
        return self.heights * nx * ny

    @property
    def low(self) -> tuple[float, float, float]:
        """The corner x, y, z (m) from which cells are counted."""
        return self.x[0], self.y[0], self.z[0]

    @property
    def high(self) -> tuple[float, float, float]:
        """The opposite corner."""
        return self.x[1], self.y[1], self.z[1]


def bev_cells(points: Tensor, grid: BevGrid, order: Literal["xy", "yx"] = "xy", truncate: bool = False) -> Tensor:
    """Flat cell (int32) of every point (..., 3), or -1 outside the grid.

    order: "xy" counts x * ny + y, "yx" counts y * nx + x, slab by slab from the lowest.
    truncate: rounds toward zero instead of down, as the original code does, which pulls points up to one cell outside
    the lower borders into the first cell.
    """
    check_shape("points", points, *points.shape[:-1], 3)
    sizes = grid.cell, grid.cell, (grid.z[1] - grid.z[0]) / grid.heights
    places = [(p - axis[0]) / size for p, axis, size in zip(points.unbind(-1), (grid.x, grid.y, grid.z), sizes)]
    x, y, z = (place.trunc() if truncate else place.floor() for place in places)
    nx, ny = grid.shape
    inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny) & (z >= 0) & (z < grid.heights)
    flat = z * (nx * ny) + (x * ny + y if order == "xy" else y * nx + x)
    return torch.where(inside, flat, -1).int()


_SHORT = 64  # points in a bag of those outside the grid


class SplatPlan(NamedTuple):
    """Which points each cell adds up, in the order in which it does. Of P pixels (b, n, h, w) with D points each.

    It follows from the cameras alone, and serves every splat of their images.
    """

    cells: Tensor  # (P, D) int32, b * num_cells + cell; -1 outside the grid
    points: Tensor  # (P * D,) int32, p * D + d, sorted by cell, those outside last
    starts: Tensor  # int32, where each cell's points begin, and then bags of those outside
    batch: int
    num_cells: int  # of the grid

    @classmethod
    def of(cls, cells: Tensor, num_cells: int) -> "SplatPlan":
        """cells: (B, N, D, h, w), flat cell of the grid or -1, see `bev_cells`."""
        check_shape("cells", cells, *[None] * 5)
        batch, _, bins = cells.shape[:3]
        # One table for the whole batch.
        offset = torch.arange(batch, device=cells.device).view(-1, 1, 1, 1, 1) * num_cells
        cells_PD = torch.where(cells < 0, -1, cells + offset).permute(0, 1, 3, 4, 2).reshape(-1, bins).int()
        # Those outside last: no size depends on the data, so a GPU need not wait to be told it; stable, so that sums
        # add up in one order.
        last = batch * num_cells
        sorted_cells, points = torch.where(cells_PD < 0, last, cells_PD).reshape(-1).sort(stable=True)
        bounds = torch.arange(last + 1, dtype=torch.int32, device=cells.device)
        starts = torch.searchsorted(sorted_cells, bounds, out_int32=True)
        # On a GPU a bag is one thread's, for each channel. Those outside, often half of all, would keep one busy for as
        # long as the rest of a step takes (45 ms of 85 on an H100; so 1.5): they go into short bags that nobody reads.
        outside = starts[-1] + torch.arange(0, len(points), _SHORT, dtype=torch.int32, device=cells.device)
        starts = torch.cat([starts[:-1], outside.clamp(max=len(points))])
        return cls(cells_PD, points.int(), starts, batch, num_cells)


def splat(depth_prob: Tensor, context: Tensor, plan: SplatPlan) -> Tensor:
    """Sum-pool the lifted features: (B, C, num_cells).

    depth_prob: (B, N, D, H, W); context: (B, N, C, H, W); plan: of the cells (B, N, D, H, W). Raises ValueError else.
    """
    bins = plan.cells.shape[1]
    views, height, width = depth_prob.shape[1], *depth_prob.shape[-2:]
    check_shape("depth_prob", depth_prob, plan.batch, views, bins, height, width)
    check_shape("context", context, plan.batch, views, None, height, width)
    check_shape("the plan", plan.cells, plan.batch * views * height * width, bins)
    prob_PD = depth_prob.permute(0, 1, 3, 4, 2).reshape(plan.cells.shape)
    context_PC = context.permute(0, 1, 3, 4, 2).reshape(len(prob_PD), -1)
    bev = _Splat.apply(prob_PD, context_PC, *plan)  # (B * num_cells, C)
    return bev.unflatten(0, (plan.batch, plan.num_cells)).transpose(1, 2)


class _Splat(torch.autograd.Function):
    """bev[c] = sum of prob[p, d] * context[p] over all (p, d) with cells[p, d] == c.

    Shapes: prob (P, D), context (P, C), the plan's, bev (batch * num_cells, C); P pixels, D depth bins.
    """

    @staticmethod
    def forward(
        ctx: Any,
        prob: Tensor,
        context: Tensor,
        cells: Tensor,
        points: Tensor,
        starts: Tensor,
        batch: int,
        num_cells: int,
    ) -> Tensor:
        ctx.save_for_backward(prob, context, cells)
        weights = prob.reshape(-1).index_select(0, points).to(context.dtype)
        pixels = points // cells.shape[1]
        bags = F.embedding_bag(pixels, context, starts, mode="sum", per_sample_weights=weights)
        return bags[: batch * num_cells]

    @staticmethod
    def backward(ctx: Any, grad_bev: Tensor) -> tuple[Tensor | None, ...]:
        prob, context, cells = ctx.saved_tensors
        num_pixels, num_bins = cells.shape
        # A row of zeros stands for "no cell", so that no entry needs to be left out.
        padded = torch.cat([grad_bev, grad_bev.new_zeros(1, grad_bev.shape[1])])
        rows = torch.where(cells < 0, grad_bev.shape[0], cells)
        grad_context = grad_prob = None
        if ctx.needs_input_grad[1]:
            starts = torch.arange(0, num_pixels * num_bins, num_bins, dtype=rows.dtype, device=cells.device)
            weights = prob.reshape(-1).to(padded.dtype)
            grad_context = F.embedding_bag(rows.reshape(-1), padded, starts, mode="sum", per_sample_weights=weights)
        if ctx.needs_input_grad[0]:
            # Bin by bin: the gathered rows are as large as the context, not D times as large.
            columns = [(padded[rows[:, d]] * context).sum(-1) for d in range(num_bins)]
            grad_prob = torch.stack(columns, 1).to(prob.dtype)
        return grad_prob, grad_context, None, None, None, None, None
