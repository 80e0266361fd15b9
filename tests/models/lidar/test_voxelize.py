import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.lidar.grid import VoxelGrid, encoder_output_shape
from models.lidar.voxelize import voxelize


def slow_voxelize(points: np.ndarray, grid: VoxelGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One point at a time, as the words say."""
    low, high = np.float32(grid.point_range[:3]), np.float32(grid.point_range[3:])
    voxels: dict[tuple, list] = {}
    for point in points:
        if not ((point[:3] > low).all() and (point[:3] < high).all()):
            continue
        cell = tuple(np.floor((point[:3] - low) / np.float32(grid.voxel_size)).astype(int))
        if min(cell) < 0 or any(c >= s for c, s in zip(cell, grid.shape)):
            continue
        if cell not in voxels:
            if len(voxels) == grid.max_voxels:
                continue
            voxels[cell] = []
        if len(voxels[cell]) < grid.max_points:
            voxels[cell].append(point)
    means = np.array([np.mean(v, 0) for v in voxels.values()]).reshape(-1, points.shape[1])
    return means, np.array(list(voxels), int).reshape(-1, 3), np.array([len(v) for v in voxels.values()], int)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 300), st.integers(1, 5), st.integers(1, 40))
def test_equals_the_slow_way(seed, count, max_points, max_voxels):
    grid = VoxelGrid((-2.0, -1.0, -1.0, 2.0, 1.0, 1.0), (0.5, 0.5, 1.0), max_points, max_voxels)
    points = np.random.default_rng(seed).uniform(-2.5, 2.5, (count, 5)).astype(np.float32)
    means, coords, counts = slow_voxelize(points, grid)
    voxels = voxelize(torch.from_numpy(points), grid)
    np.testing.assert_array_equal(voxels.coords.numpy(), coords)
    np.testing.assert_array_equal(voxels.counts.numpy(), counts)
    np.testing.assert_allclose(voxels.means.numpy(), means, atol=1e-5)


def test_the_range_is_strict():
    grid = VoxelGrid((0.0, 0.0, 0.0, 1.0, 1.0, 1.0), (0.5, 0.5, 0.5))
    points = torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.5, 0.5], [0.5, 0.5, 0.5], [float("nan"), 0.5, 0.5]])
    assert voxelize(points, grid).coords.tolist() == [[1, 1, 1]]


def test_published_shapes():
    grid = VoxelGrid((-54, -54, -5, 54, 54, 3), (0.075, 0.075, 0.2))
    assert grid.shape == (1440, 1440, 40)
    assert grid.sparse_shape == (1440, 1440, 41)
    assert encoder_output_shape(grid.sparse_shape, 128) == (256, 180, 180)
