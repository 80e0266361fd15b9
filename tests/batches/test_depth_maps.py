"""Depth targets against a loop over the points, and against the full-size map's nearest depth in each cell."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batches.depth_maps import depth_target, nearest_depths
from storage.depth import CameraPoints


def full_map(u, v, depth, post, size) -> np.ndarray:
    """(H, W): the nearest point in each pixel, by a loop; 0 where there is none."""
    out = np.zeros(size, np.float32)
    for point in zip(u.tolist(), v.tolist(), depth.tolist(), strict=True):
        x, y, _, _ = post @ [*point, 1.0]
        row, column = math.floor(y), math.floor(x)
        if 0 <= row < size[0] and 0 <= column < size[1]:
            there = out[row, column]
            out[row, column] = point[2] if there == 0 else min(point[2], there)
    return out


def nearest_in_cells(depths: np.ndarray, stride: int) -> np.ndarray:
    """(H/stride, W/stride) of a map (H, W); 0, which says "no point", never wins over a point."""
    out = np.zeros((depths.shape[0] // stride, depths.shape[1] // stride), depths.dtype)
    for i, j in np.ndindex(out.shape):
        cell = depths[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
        out[i, j] = cell[cell > 0].min() if (cell > 0).any() else 0
    return out


def affine(scale, angle, shift) -> np.ndarray:
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[c, s, 0, shift[0]], [-s, c, 0, shift[1]], [0, 0, 1, 0], [0, 0, 0, 1]])


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 300),
    stride=st.sampled_from([1, 2, 3, 8, 16]),
    scale=st.floats(0.2, 2.0),
    angle=st.floats(-0.5, 0.5),
    shift=st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
)
def test_the_target_is_what_the_full_map_has_in_each_cell(seed, count, stride, scale, angle, shift):
    rng = np.random.default_rng(seed)
    u, v = rng.uniform(-5, 70, (2, count)).astype(np.float32)
    # Few depths, close together: ties, and differences that a rank in float32 would lose.
    depth = (50 + rng.integers(0, 40, count) * 1e-5).astype(np.float32)
    post = affine(scale, angle, shift)
    found = nearest_depths(u, v, depth, post, (48, 48), stride)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, nearest_in_cells(full_map(u, v, depth, post, (48, 48)), stride))


def test_cells_are_floors_and_outside_is_left_out():
    u = np.array([0.0, 0.999, 1.0, -0.001, 2.0, 1.999])
    found = nearest_depths(u, np.full(6, 0.5), np.array([5.0, 4, 3, 2, 1, 6]), np.eye(4), (1, 2), 1)
    assert found.tolist() == [[4, 3]]


def test_a_mirrored_image():
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = 4
    found = nearest_depths(np.array([0.5]), np.array([0.5]), np.array([7.0]), mirror, (2, 4), 2)
    assert found.tolist() == [[0, 7]]


def test_a_stride_that_does_not_fit():
    with pytest.raises(ValueError, match="an image of 10x16 does not divide into cells of 4"):
        nearest_depths(np.zeros(0), np.zeros(0), np.zeros(0), np.eye(4), (10, 16), 4)


@pytest.mark.parametrize("sweeps", [0, 1, 10])
def test_the_sweeps_that_are_asked_for(sweeps):
    """In any order: nothing says that a sweep's points stand together."""
    random = np.random.default_rng(0)
    u, v, depth = random.uniform(0, 48, (3, 500)).astype(np.float32)
    sweep = random.integers(0, 4, 500).astype(np.uint8)
    post, recent = affine(1.1, 0.1, (-2, 3)), sweep <= sweeps
    found = depth_target(CameraPoints(u, v, depth, sweep), sweeps, post, (48, 48), 8)
    wanted = nearest_in_cells(full_map(u[recent], v[recent], depth[recent], post, (48, 48)), 8)
    np.testing.assert_array_equal(found, wanted)


def test_pixels_may_be_whole_numbers():
    half = np.diag([0.5, 0.5, 1, 1])
    assert nearest_depths(np.array([3]), np.array([1]), np.array([9]), half, (1, 2), 1).tolist() == [[0, 9]]
