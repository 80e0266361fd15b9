"""Voxels that keep their points, as mmdet3d's voxel encoders read them; in the place of mmcv's compiled operators.

Coordinates are (z, y, x), mmcv's order. A point lies in cell floor((p - min) / size), in float32; unlike
`voxelize.voxelize`, which follows BEVFusion, one that lies exactly on the lower border is inside.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.lidar.grid import VoxelGrid
from models.lidar.segment import segment_sum


class PointVoxels(NamedTuple):
    """V voxels in the order in which the points opened them."""

    points: Tensor  # (V, grid.max_points, F) float32, the first points of each in the cloud's order, then zeros
    coords: Tensor  # (V, 3) int64: z, y, x
    counts: Tensor  # (V,) int64, points kept


def point_voxels(points: Tensor, grid: VoxelGrid) -> PointVoxels:
    """Hard voxelisation of points (N, F >= 3) whose first columns are x, y, z (m) in the grid's frame."""
    points, coords = inside(points, grid)
    if len(points) == 0:
        return PointVoxels(points.new_zeros(0, grid.max_points, points.shape[1]), coords, coords.new_zeros(0))
    x, y, _ = grid.shape
    # A stable sort groups the points by voxel and keeps their order within each.
    key, order = torch.sort((coords[:, 0] * y + coords[:, 1]) * x + coords[:, 2], stable=True)
    starts = torch.cat([key.new_zeros(1), 1 + torch.nonzero(key[1:] != key[:-1])[:, 0]])
    counts = torch.diff(starts, append=starts.new_tensor([len(key)])).clamp(max=grid.max_points)

    by_appearance = torch.argsort(order[starts])[: grid.max_voxels]
    starts, counts = starts[by_appearance], counts[by_appearance]
    slots = torch.arange(grid.max_points, device=points.device)
    rows = (starts[:, None] + slots).clamp(max=len(order) - 1)
    empty = slots >= counts[:, None]
    return PointVoxels(points[order[rows]].masked_fill_(empty[..., None], 0), coords[order[starts]], counts)


def inside(points: Tensor, grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """The points (M, F) of the cloud that lie in the grid, and their cells (M, 3) int64: dynamic voxelisation."""
    low, size = points.new_tensor(grid.point_range[:3]), points.new_tensor(grid.voxel_size)
    cells = torch.floor((points[:, :3] - low) / size)
    kept = ((cells >= 0) & (cells < cells.new_tensor(grid.shape))).all(1)  # NaN compares false
    return points[kept], cells[kept].long().flip(1)


class Scatter(nn.Module):
    """The mean or the maximum of the points of each voxel, after mmcv's DynamicScatter.

    The sums run in a fixed order, so a map does not vary from run to run, on CPU or CUDA.
    """

    def __init__(self, average: bool):
        super().__init__()
        self.average = average

    def forward(self, features: Tensor, coords: Tensor) -> tuple[Tensor, Tensor]:
        """(V, C) and the voxels' coordinates (V, K), ascending, of features (N, C) at coords (N, K)."""
        voxels, voxel_of_point, counts = torch.unique(coords, dim=0, return_inverse=True, return_counts=True)
        if self.average:
            order = torch.argsort(voxel_of_point, stable=True)
            return segment_sum(features, order, torch.cumsum(counts, 0) - counts) / counts[:, None], voxels
        index = voxel_of_point[:, None].expand_as(features)
        return features.new_zeros(len(voxels), features.shape[1]).scatter_reduce_(
            0, index, features, "amax", include_self=False
        ), voxels
