"""A volume moved with the ego stands where the ego's motion puts it, to a hundredth of a voxel."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.mim4d.warp import sampling_places, warp, warp_indices

LOW, HIGH = (-10.0, -3.0, -5.0), (22.0, 9.0, 3.0)  # about nothing symmetric
SHAPE = 5, 24, 32  # Z, Y, X
SIZE = np.array([1.0, 0.5, 1.6])  # of a voxel, x, y, z

motions = st.tuples(
    st.tuples(*[st.floats(-0.3, 0.3)] * 3),  # rad about z, y, x
    st.tuples(st.floats(-6, 6), st.floats(-4, 4), st.floats(-2, 2)),  # m
)


def matrix(angles=(0.0, 0.0, 0.0), shift=(0.0, 0.0, 0.0)) -> torch.Tensor:
    """(1, 4, 4): turned about z, then y, then x, and moved."""
    whole = np.eye(4)
    whole[:3, 3] = shift
    for (a, b), angle in zip(((0, 1), (0, 2), (1, 2)), angles):
        turn = np.eye(4)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[b, a], turn[a, b] = np.sin(angle), -np.sin(angle)
        whole = whole @ turn
    return torch.tensor(whole)[None]


def centres(shape=SHAPE, low=LOW, high=HIGH) -> torch.Tensor:
    """(3, Z, Y, X): x, y, z (m) of every voxel's centre."""
    sides = (low[i] + (torch.arange(n).double() + 0.5) * (high[i] - low[i]) / n for i, n in enumerate(shape[::-1]))
    x, y, z = sides
    z, y, x = torch.meshgrid(z, y, x, indexing="ij")
    return torch.stack([x, y, z])


def moved(motion: torch.Tensor) -> np.ndarray:
    """(3, Z, Y, X): where each target voxel's centre is in the source frame."""
    homogeneous = np.concatenate([centres().numpy(), np.ones((1, *SHAPE))])
    return np.einsum("ij,j...->i...", motion[0].numpy(), homogeneous)[:3]


def well_inside(places: np.ndarray) -> np.ndarray:
    """Whether all voxels around are there."""
    low, high, size = (np.array(side).reshape(3, 1, 1, 1) for side in (LOW, HIGH, SIZE))
    return ((places > low + size / 2) & (places < high - size / 2)).all(0)


def read_one_by_one(volume: np.ndarray, motion: np.ndarray, low, high) -> np.ndarray:
    """Each voxel of the target from its eight neighbours in the source, (C, Z, Y, X)."""
    sides = np.array(volume.shape[:0:-1])
    size = (np.array(high) - low) / sides
    out = np.zeros_like(volume)
    for z, y, x in np.ndindex(volume.shape[1:]):
        point = motion @ [*(low + (np.array([x, y, z]) + 0.5) * size), 1]
        place = (point[:3] - low) / size - 0.5
        first = np.floor(place).astype(int)
        for step in itertools.product((0, 1), repeat=3):
            voxel = first + step
            if (voxel >= 0).all() and (voxel < sides).all():
                share = np.where(step, place - first, 1 - (place - first)).prod()
                out[:, z, y, x] += share * volume[:, voxel[2], voxel[1], voxel[0]]
    return out


@settings(max_examples=25, deadline=None)
@given(motions, st.tuples(*[st.integers(1, 5)] * 3), st.integers(0, 10**6))
def test_voxel_by_voxel(motion, shape, seed):
    volume = torch.tensor(np.random.default_rng(seed).normal(size=(2, *shape)))
    found = warp(volume[None], LOW, HIGH, matrix(*motion))
    wanted = read_one_by_one(volume.numpy(), matrix(*motion)[0].numpy(), LOW, HIGH)
    np.testing.assert_allclose(found[0], wanted, atol=1e-9)
    np.testing.assert_allclose(warp(volume[None].float(), LOW, HIGH, matrix(*motion))[0], wanted, atol=1e-3)


def test_standing_still_changes_nothing():
    volume = torch.randn(2, 3, *SHAPE)
    torch.testing.assert_close(warp(volume, LOW, HIGH, matrix().expand(2, 4, 4)), volume, atol=1e-4, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2], ids="xyz")
@pytest.mark.parametrize("voxels", [1, -2, 0.25, -1.5])
def test_known_shifts(axis, voxels):
    """By whole voxels, and by parts of them; what comes in from outside is zero."""
    shift = np.zeros(3)
    shift[axis] = voxels * SIZE[axis]
    volume = torch.randn(1, 2, *SHAPE)
    found = warp(volume, LOW, HIGH, matrix(shift=shift))

    def whole(count: int) -> torch.Tensor:
        """The target's voxel i is the source's i + count."""
        dim = 4 - axis
        rolled = volume.roll(-count, dim)
        index = torch.arange(volume.shape[dim]) + count
        outside = (index < 0) | (index >= volume.shape[dim])
        return rolled.index_fill(dim, outside.nonzero()[:, 0], 0)

    part = voxels - np.floor(voxels)
    wanted = (1 - part) * whole(int(np.floor(voxels))) + part * whole(int(np.floor(voxels)) + 1)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_known_turns(quarters):
    """A square around the ego, turned to the left by quarters of a turn."""
    volume = torch.randn(1, 2, 3, 8, 8)
    low, high = (-4.0, -4.0, -1.0), (4.0, 4.0, 2.0)
    found = warp(volume, low, high, matrix((quarters * np.pi / 2, 0, 0)))
    # The target's x axis is the source's y axis: what was ahead is now to the right.
    torch.testing.assert_close(found, volume.rot90(-quarters, (4, 3)), atol=1e-4, rtol=0)
    x, y = 6, 3  # 2.5 m ahead, 0.5 m to the right
    turned = {1: (4, 6), 2: (1, 4), 3: (3, 1)}[quarters]
    torch.testing.assert_close(found[0, :, 1, y, x], volume[0, :, 1, turned[1], turned[0]], atol=1e-4, rtol=0)


@settings(max_examples=50, deadline=None)
@given(motions)
def test_a_volume_of_places_says_where_it_was_read(motion):
    """Its values are x, y, z (m) of its voxels: what comes out is the place itself."""
    places = moved(matrix(*motion))
    found = warp(centres()[None].float(), LOW, HIGH, matrix(*motion))[0].numpy()
    inside = well_inside(places)
    errors = np.abs(found - places) / SIZE.reshape(3, 1, 1, 1)
    assert errors[:, inside].max(initial=0) < 0.01
    beyond = (places < np.array(LOW).reshape(3, 1, 1, 1) - SIZE.reshape(3, 1, 1, 1) / 2).any(0)
    assert not found[:, beyond].any()


@settings(max_examples=50, deadline=None)
@given(motions, motions)
def test_two_motions_are_one(first, second):
    """From the source to a frame between and on to the target, as straight to the target."""
    to_source, to_between = matrix(*first), matrix(*second)
    there = torch.cat([centres(), torch.ones(1, *SHAPE)])[None].double()
    one_by_one = warp(warp(there, LOW, HIGH, to_source), LOW, HIGH, to_between)[0]
    at_once = warp(there, LOW, HIGH, to_source @ to_between)[0]
    inside = (one_by_one[3] > 1 - 1e-9) & (at_once[3] > 1 - 1e-9)
    errors = (one_by_one - at_once)[:3, inside].abs() / torch.tensor(SIZE)[:, None]
    assert not inside.any() or errors.max() < 0.01


def test_each_sample_has_its_own_motion():
    volumes, motion = torch.randn(2, 3, *SHAPE), torch.cat([matrix((0.1, 0, 0), (1, 2, 0)), matrix((0, 0.1, 0))])
    both = warp(volumes, LOW, HIGH, motion)
    for sample in range(2):
        alone = warp(volumes[sample : sample + 1], LOW, HIGH, motion[sample : sample + 1])
        torch.testing.assert_close(both[sample], alone[0], atol=0, rtol=0)


def test_places_are_the_same_in_every_precision():
    motion = matrix((0.3, 0.01, -0.02), (5.3, -2.1, 0.04))
    places, volume = sampling_places(SHAPE, LOW, HIGH, motion), torch.randn(1, 2, *SHAPE)
    wanted = warp(volume, LOW, HIGH, motion)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sampling_places(SHAPE, LOW, HIGH, motion), places)
        assert torch.equal(warp(volume, LOW, HIGH, motion), wanted)
        halved = warp(volume.bfloat16(), LOW, HIGH, motion)
    assert halved.dtype == torch.bfloat16
    torch.testing.assert_close(halved.float(), wanted, atol=0.03, rtol=0.01)


def test_gradients_reach_what_was_read():
    volume = torch.randn(1, 1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: warp(v, LOW, HIGH, matrix((0.1, 0, 0), (4, 1, 0))), volume)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="target_to_source has the shape"):
        warp(torch.zeros(2, 1, *SHAPE), LOW, HIGH, matrix())
    with pytest.raises(ValueError, match="volume has the shape"):
        warp(torch.zeros(1, *SHAPE), LOW, HIGH, matrix())


def test_metres_for_indices():
    """The original's: right where voxels are 1 m and the first one is at the origin, and metres off elsewhere."""
    volume, motion = torch.randn(1, 2, *SHAPE), matrix((0.05, 0, 0), (1.5, -0.25, 0.5))
    depth, height, width = SHAPE
    at_origin = warp(volume, (-0.5, -0.5, -0.5), (width - 0.5, height - 0.5, depth - 0.5), motion)
    assert torch.equal(warp_indices(volume, motion), at_origin)

    low, high, shape = (-54.0, -54.0, -5.0), (54.0, 54.0, 3.0), (1, 180, 180)
    places, motion = centres(shape, low, high), matrix((np.deg2rad(3), 0, 0), (1, 0, 0))
    off = (warp_indices(places[None], motion) - warp(places[None], low, high, motion))[0, :2, 0, 90, 90]
    assert off.norm() == pytest.approx(4.3, abs=0.1)
