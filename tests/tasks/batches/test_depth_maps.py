"""Depth maps against a loop over the points."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.batches.depth_maps import block_minimum, depth_map


def depth_map_by_loop(u, v, depth, post, size, keep) -> np.ndarray:
    out = np.zeros(size, np.float32)
    for point in zip(u.tolist(), v.tolist(), depth.tolist(), strict=True):
        x, y, _, _ = post @ [*point, 1.0]
        row, column = math.floor(y), math.floor(x)
        if 0 <= row < size[0] and 0 <= column < size[1]:
            there = out[row, column]
            out[row, column] = point[2] if keep == "last" or there == 0 else min(point[2], there)
    return out


def affine(scale, angle, shift) -> np.ndarray:
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[c, s, 0, shift[0]], [-s, c, 0, shift[1]], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("keep", ["nearest", "last"])
@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 300),
    scale=st.floats(0.2, 2.0),
    angle=st.floats(-0.5, 0.5),
    shift=st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
)
def test_one_point_wins_as_in_the_loop(keep, seed, count, scale, angle, shift):
    rng = np.random.default_rng(seed)
    u, v = rng.uniform(-5, 45, (2, count)).astype(np.float32)
    # Few depths, close together: ties, and differences that a rank in float32 would lose.
    depth = (50 + rng.integers(0, 40, count) * 1e-5).astype(np.float32)
    post = affine(scale, angle, shift)
    found = depth_map(u, v, depth, post, (24, 40), keep)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, depth_map_by_loop(u, v, depth, post, (24, 40), keep))


def test_cells_are_floors_and_outside_is_left_out():
    u = np.array([0.0, 0.999, 1.0, -0.001, 2.0, 1.999])
    found = depth_map(u, np.full(6, 0.5), np.array([5.0, 4, 3, 2, 1, 6]), np.eye(4), (1, 2))
    assert found.tolist() == [[4, 3]]


def test_a_mirrored_image():
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = 4
    found = depth_map(np.array([0.5]), np.array([0.5]), np.array([7.0]), mirror, (1, 4))
    assert found.tolist() == [[0, 0, 0, 7]]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), block=st.sampled_from([1, 2, 4]))
def test_block_minimum_is_the_nearest_of_the_block(seed, block):
    rng = np.random.default_rng(seed)
    depths = rng.uniform(1, 60, (2, 3, 8, 12)).astype(np.float32) * (rng.uniform(size=(2, 3, 8, 12)) < 0.2)
    found = block_minimum(depths, block)
    assert found.shape == (2, 3, 8 // block, 12 // block)
    assert found.dtype == depths.dtype
    for (a, b, i, j), value in np.ndenumerate(found):
        cell = depths[a, b, i * block : (i + 1) * block, j * block : (j + 1) * block]
        assert value == (cell[cell > 0].min() if (cell > 0).any() else 0)


def test_a_block_that_does_not_fit():
    with pytest.raises(ValueError, match="10x16 depth map does not divide into blocks of 4"):
        block_minimum(np.zeros((10, 16)), 4)
