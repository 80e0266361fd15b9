import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.lidar.grid import VoxelGrid
from models.lidar.point_voxels import Scatter, inside, point_voxels


def slow_cell(point: np.ndarray, grid: VoxelGrid) -> tuple[int, ...] | None:
    """(z, y, x) of one point, as mmcv's loop finds it, or None outside."""
    cell = np.floor((point[:3] - np.float32(grid.point_range[:3])) / np.float32(grid.voxel_size))
    if not all(0 <= c < n for c, n in zip(cell, grid.shape)):
        return None
    return tuple(int(c) for c in cell[::-1])


def slow_point_voxels(points: np.ndarray, grid: VoxelGrid):
    """One point at a time, as the words say."""
    voxels: dict[tuple, list] = {}
    for point in points:
        cell = slow_cell(point, grid)
        if cell is None or (cell not in voxels and len(voxels) == grid.max_voxels):
            continue
        if len(voxels.setdefault(cell, [])) < grid.max_points:
            voxels[cell].append(point)
    padded = np.zeros((len(voxels), grid.max_points, points.shape[1]), np.float32)
    for row, kept in zip(padded, voxels.values()):
        row[: len(kept)] = kept
    return padded, np.array(list(voxels), int).reshape(-1, 3), np.array([len(v) for v in voxels.values()], int)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 300), st.integers(1, 5), st.integers(1, 40), st.booleans())
def test_equals_the_slow_way(seed, count, max_points, max_voxels, on_borders):
    grid = VoxelGrid((-2.0, -1.0, -1.0, 2.0, 1.0, 1.0), (0.5, 0.25, 1.0), max_points, max_voxels)
    points = np.random.default_rng(seed).uniform(-2.5, 2.5, (count, 5)).astype(np.float32)
    if on_borders:
        points[:, :3] = np.round(points[:, :3] * 4) / 4
    points[::17, 1] = np.nan
    want, coords, counts = slow_point_voxels(points, grid)
    voxels = point_voxels(torch.from_numpy(points), grid)
    np.testing.assert_array_equal(voxels.points.numpy(), want)
    np.testing.assert_array_equal(voxels.coords.numpy(), coords)
    np.testing.assert_array_equal(voxels.counts.numpy(), counts)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 100))
def test_inside_keeps_order_and_says_cells(seed, count):
    grid = VoxelGrid((-2.0, -1.0, -1.0, 2.0, 1.0, 1.0), (0.5, 0.25, 1.0))
    points = np.random.default_rng(seed).uniform(-2.5, 2.5, (count, 4)).astype(np.float32)
    cells = [slow_cell(p, grid) for p in points]
    kept, coords = inside(torch.from_numpy(points), grid)
    np.testing.assert_array_equal(kept.numpy(), points[[c is not None for c in cells]])
    np.testing.assert_array_equal(coords.numpy(), np.array([c for c in cells if c is not None]).reshape(-1, 3))


@pytest.mark.parametrize("average", [True, False])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 60))
def test_scatter_equals_the_slow_way(average, seed, count):
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, 3)).astype(np.float32)
    coords = random.integers(0, 3, (count, 4))
    found, voxels = Scatter(average)(torch.from_numpy(features), torch.from_numpy(coords))
    cells = sorted({tuple(c) for c in coords.tolist()})
    assert [tuple(v) for v in voxels.tolist()] == cells
    for cell, feature in zip(cells, found.numpy()):
        own = features[(coords == cell).all(1)]
        np.testing.assert_allclose(feature, own.mean(0) if average else own.max(0), atol=1e-6)
