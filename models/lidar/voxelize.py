"""Hard voxelisation: points to voxel means, as the BEVFusion teacher was trained on."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.lidar.grid import VoxelGrid
from models.lidar.segment import segment_sum


class Voxels(NamedTuple):
    """V voxels in the order in which the points opened them."""

    means: Tensor  # (V, F) float32, mean of the kept points
    coords: Tensor  # (V, 3) int64: x, y, z
    counts: Tensor  # (V,) int64, kept points


def voxelize(points: Tensor, grid: VoxelGrid) -> Voxels:
    """Voxels of points (N, F >= 3) float32 whose first columns are x, y, z (m) in the grid's frame.

    Strictly inside the range only; the coordinate is floor((p - min) / size) in float32, so that border cases fall as
    they did when the published checkpoints were trained.
    """
    low = points.new_tensor(grid.point_range[:3])
    high = points.new_tensor(grid.point_range[3:])
    size = points.new_tensor(grid.voxel_size)
    shape = torch.tensor(grid.shape, device=points.device)

    xyz = points[:, :3]
    coords = torch.floor((xyz - low) / size).long()
    inside = ((xyz > low) & (xyz < high) & (coords >= 0) & (coords < shape)).all(1)
    points, coords = points[inside], coords[inside]
    if len(points) == 0:
        return Voxels(points, coords, coords.new_zeros(0))

    key = (coords[:, 0] * shape[1] + coords[:, 1]) * shape[2] + coords[:, 2]
    # A stable sort groups the points by voxel and keeps scan order within each.
    key, order = torch.sort(key, stable=True)
    starts = torch.cat([key.new_zeros(1), 1 + torch.nonzero(key[1:] != key[:-1])[:, 0]])
    lengths = torch.diff(starts, append=starts.new_tensor([len(key)]))

    # Voxels in the order of their first point; those beyond max_voxels are never opened.
    by_appearance = torch.argsort(order[starts])[: grid.max_voxels]
    starts, counts = starts[by_appearance], lengths[by_appearance].clamp(max=grid.max_points)
    kept_starts = torch.cumsum(counts, 0) - counts
    kept = torch.repeat_interleave(starts - kept_starts, counts) + torch.arange(int(counts.sum()), device=key.device)
    means = segment_sum(points, order[kept], kept_starts) / counts[:, None]
    return Voxels(means, coords[order[starts]], counts)
