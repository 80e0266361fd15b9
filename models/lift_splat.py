"""Lift-splat (arXiv 2008.05711): camera features to a bird's-eye view, through a depth distribution per pixel.

A feature pixel stands for D points along its ray. Each falls into a cell of the BEV grid, or into none (-1), and gives
it the pixel's context weighted with the point's probability. Written as a sparse matrix (cells x pixels) times the
context (pixels x channels), the frustum of features (B, N, D, H, W, C) never exists.

Frames are the caller's: `camera_to_bev` may lead to the LiDAR frame (GeoMIM, BEV laid out [X, Y]) or to the ego frame
(BEVDet, [Y, X]: `order="yx"`), and may hold a BEV augmentation.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class BevGrid:
    """Square cells of one height slab: x and y in [low, high) m in steps of `cell` m, z in [low, high) m."""

    x: tuple[float, float]
    y: tuple[float, float]
    z: tuple[float, float]
    cell: float

    @property
    def shape(self) -> tuple[int, int]:
        """(cells along x, cells along y)."""
        return round((self.x[1] - self.x[0]) / self.cell), round((self.y[1] - self.y[0]) / self.cell)


def frustum(depths: Tensor, image_size: tuple[int, int], stride: int) -> Tensor:
    """Points (u, v, depth) of a camera's feature pixels: (D, H/stride, W/stride, 3).

    u runs evenly from 0 to W - 1 and v from 0 to H - 1 (the corners, not the patch centres: the field's convention,
    which trained weights expect). depths: (D,) in m. image_size: (H, W) of the network's input.
    """
    height, width = image_size
    u = torch.linspace(0, width - 1, width // stride, dtype=depths.dtype, device=depths.device)
    v = torch.linspace(0, height - 1, height // stride, dtype=depths.dtype, device=depths.device)
    d, v, u = torch.meshgrid(depths, v, u, indexing="ij")
    return torch.stack([u, v, d], -1)


def frustum_points(points: Tensor, intrinsics: Tensor, post_homography: Tensor, camera_to_bev: Tensor) -> Tensor:
    """Frustum points (D, h, w, 3) of every camera in the BEV frame: (B, N, D, h, w, 3), m.

    intrinsics: (B, N, 3, 3) of the stored image; post_homography: (B, N, 4, 4), stored pixel (u, v, d, 1) -> pixel of
    the network's input; camera_to_bev: (B, N, 4, 4).
    """
    batch, cameras = intrinsics.shape[:2]
    flat = points.reshape(1, 1, -1, 3)
    pixels = (flat - post_homography[..., None, :3, 3]) @ torch.inverse(post_homography[..., :3, :3]).transpose(-1, -2)
    rays = torch.cat([pixels[..., :2] * pixels[..., 2:], pixels[..., 2:]], -1)
    rotation = camera_to_bev[..., :3, :3] @ torch.inverse(intrinsics)
    located = rays @ rotation.transpose(-1, -2) + camera_to_bev[..., None, :3, 3]
    return located.view(batch, cameras, *points.shape)


def bev_cells(points: Tensor, grid: BevGrid, order: Literal["xy", "yx"] = "xy", truncate: bool = False) -> Tensor:
    """Flat cell (int64) of every point (..., 3), or -1 outside the grid.

    order: "xy" counts x * ny + y, "yx" counts y * nx + x. truncate: rounds toward zero instead of down, as the
    original code does, which pulls points up to one cell outside the lower borders into the first cell.
    """
    low = points.new_tensor([grid.x[0], grid.y[0], grid.z[0]])
    size = points.new_tensor([grid.cell, grid.cell, grid.z[1] - grid.z[0]])
    index = (points - low) / size
    index = (index.trunc() if truncate else index.floor()).long()
    x, y, z = index.unbind(-1)
    nx, ny = grid.shape
    inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny) & (z == 0)
    flat = x * ny + y if order == "xy" else y * nx + x
    return torch.where(inside, flat, -1)


def splat(depth_prob: Tensor, context: Tensor, cells: Tensor, num_cells: int) -> Tensor:
    """Sum-pool the lifted features: (B, C, num_cells).

    depth_prob: (B, N, D, H, W); context: (B, N, C, H, W); cells: int64 (B, N, D, H, W), flat cell of the grid or -1.
    """
    batch = depth_prob.shape[0]
    channels = context.shape[2]
    # One table for the whole batch: cells of sample b are b * num_cells + cell; pixels are (b, n, h, w).
    offset = torch.arange(batch, device=cells.device).view(-1, 1, 1, 1, 1) * num_cells
    cells_PD = torch.where(cells < 0, -1, cells + offset).permute(0, 1, 3, 4, 2).reshape(-1, cells.shape[2])
    prob_PD = depth_prob.permute(0, 1, 3, 4, 2).reshape(-1, cells.shape[2])
    context_PC = context.permute(0, 1, 3, 4, 2).reshape(-1, channels)
    bev = _Splat.apply(prob_PD, context_PC, cells_PD, batch * num_cells)  # (B * num_cells, C)
    return bev.view(batch, num_cells, channels).transpose(1, 2)


_SHORT = 64  # points in a bag of those outside the grid


class _Splat(torch.autograd.Function):
    """bev[c] = sum of prob[p, d] * context[p] over all (p, d) with cells[p, d] == c.

    Shapes: prob (P, D), context (P, C), cells (P, D), bev (num_cells, C); P pixels, D depth bins.
    """

    @staticmethod
    def forward(ctx, prob: Tensor, context: Tensor, cells: Tensor, num_cells: int) -> Tensor:
        ctx.save_for_backward(prob, context, cells)
        # Entries p * D + d sorted by cell, those outside last: no size depends on the data, so a GPU need not wait to
        # be told it; stable, so that sums add up in one order.
        sorted_cells, entries = torch.where(cells < 0, num_cells, cells).reshape(-1).sort(stable=True)
        starts = torch.searchsorted(sorted_cells, torch.arange(num_cells + 1, device=cells.device))
        # On a GPU a bag is one thread's, for each channel. Those outside, often half of all, would keep one busy for as
        # long as the rest of a step takes (45 ms of 85 on an H100; so 1.5): they go into short bags that nobody reads.
        outside = starts[-1] + torch.arange(0, len(entries), _SHORT, device=cells.device)
        starts = torch.cat([starts[:-1], outside.clamp(max=len(entries))])
        weights = prob.reshape(-1)[entries].to(context.dtype)
        pixels = entries // cells.shape[1]
        return F.embedding_bag(pixels, context, starts, mode="sum", per_sample_weights=weights)[:num_cells]

    @staticmethod
    def backward(ctx, grad_bev: Tensor):
        prob, context, cells = ctx.saved_tensors
        num_pixels, num_bins = cells.shape
        # A row of zeros stands for "no cell", so that no entry needs to be left out.
        padded = torch.cat([grad_bev, grad_bev.new_zeros(1, grad_bev.shape[1])])
        rows = torch.where(cells < 0, grad_bev.shape[0], cells)
        grad_context = grad_prob = None
        if ctx.needs_input_grad[1]:
            starts = torch.arange(0, num_pixels * num_bins, num_bins, device=cells.device)
            weights = prob.reshape(-1).to(padded.dtype)
            grad_context = F.embedding_bag(rows.reshape(-1), padded, starts, mode="sum", per_sample_weights=weights)
        if ctx.needs_input_grad[0]:
            # Bin by bin: the gathered rows are as large as the context, not D times as large.
            columns = [(padded[rows[:, d]] * context).sum(-1) for d in range(num_bins)]
            grad_prob = torch.stack(columns, 1).to(prob.dtype)
        return grad_prob, grad_context, None, None
