"""A static scene, seen from where the ego is and from where it was, lies in one place."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models.bevdet.alignment import aligned, sampling_grid
from models.cameras import Cameras
from models.geometry import apply, inverse, project
from models.lift_splat import BevGrid, SplatPlan, bev_cells, splat
from models.rays import pixel_rays
from small_detectors import AHEAD, turned

GRID = BevGrid((-16, 16), (-12, 12), (-5, 3), 1.0)
INTRINSICS = np.array([[150.0, 0, 96], [0, 150, 64], [0, 0, 1]])

motions = st.tuples(st.floats(-0.5, 0.5), st.floats(-3, 5), st.floats(-1.5, 1.5))
places = st.tuples(st.floats(8.5, 11), st.floats(-3, 3), st.just(1.0)).map(np.array)


def cameras_of(motion, scene=None) -> Cameras:
    """One camera that looks ahead, in a key frame and in a frame when the ego stood at `motion` (yaw, ahead, left)."""
    poses = np.stack([AHEAD, turned(*motion) @ AHEAD])
    return Cameras(
        torch.tensor(INTRINSICS).float().expand(1, 2, 1, 3, 3),
        torch.eye(4).expand(1, 2, 1, 4, 4),
        torch.tensor(poses).float()[None, :, None],
        torch.tensor(poses[:1]).float()[None],
        torch.tensor(np.eye(4) if scene is None else scene).float()[None],
    )


def seen(cameras: Cameras, frame: int, place: np.ndarray, pose: torch.Tensor) -> torch.Tensor:
    """The map (1, 1, Y, X) of a heap of points 5 m across at `place` in the key ego frame, splatted with a pose."""
    points = place + np.random.default_rng(0).uniform(-2.5, 2.5, (3000, 3))
    points = apply(np.linalg.inv(cameras.camera_to_frame[0, frame, 0].double().numpy()), points)
    pixels, depths = project(points, INTRINSICS)
    rays = pixel_rays(cameras.lens(frame), pose, torch.tensor(pixels)[None])  # one row of pixels
    located = torch.tensor(depths) * rays.towards + rays.origin[..., None, None]  # each pixel at its own depth
    located = located.movedim(2, -1).unsqueeze(2)  # (B, N, 1 bin, 1 row, points, 3)
    nx, ny = GRID.shape
    one = torch.ones(located.shape[:-1])
    plan = SplatPlan.of(bev_cells(located, GRID, order="yx"), nx * ny)
    return splat(one, one, plan).unflatten(2, (ny, nx))


def center(bev: torch.Tensor) -> np.ndarray:
    """x and y (m) of a map's centre of mass."""
    mass = bev[0, 0].double() / bev.double().sum()
    x, y = (torch.arange(n) + 0.5 + low for n, low in zip(GRID.shape, (GRID.x[0], GRID.y[0])))
    return np.array([float(mass.sum(0) @ x.double()), float(mass.sum(1) @ y.double())])


def on_the_map(motion, place: np.ndarray) -> bool:
    """Whether the whole heap is ahead of both frames' cameras and on both frames' maps."""
    there = apply(inverse(turned(*motion)), place[None])[0]
    return all(5 < ahead < 12 and abs(left) < 8 for ahead, left, _ in (place, there))


@settings(max_examples=30, deadline=None)
@given(motions, places)
def test_a_static_scene_lines_up_to_a_tenth_of_a_cell(motion, place):
    assume(on_the_map(motion, place))
    cameras = cameras_of(motion)
    key = seen(cameras, 0, place, cameras.camera_to_bev(0))
    straight = seen(cameras, 1, place, cameras.camera_to_bev(1))
    moved = aligned(seen(cameras, 1, place, cameras.camera_to_bev(0)), sampling_grid(cameras, 1, GRID))
    np.testing.assert_allclose(center(key), place[:2], atol=0.1)
    np.testing.assert_allclose(center(straight), center(key), atol=0.1)
    np.testing.assert_allclose(center(moved), center(key), atol=0.1)


def test_the_released_detectors_way_is_off_where_the_ego_turns():
    """By 0.7 of a cell times the angle, which is more than a tenth of a cell here."""
    angle, place = 0.3, np.array([10.0, 0.0, 1.0])
    cameras = cameras_of((angle, 1.0, 0.0))
    earlier = seen(cameras, 1, place, cameras.camera_to_bev(0))
    ours, released = (aligned(earlier, sampling_grid(cameras, 1, GRID, at_corners)) for at_corners in (False, True))
    assert np.linalg.norm(center(ours) - place[:2]) < 0.1
    shift = np.linalg.norm(center(released) - center(ours))
    assert shift == pytest.approx(2 * math.sin(angle / 2) / math.sqrt(2), abs=0.03)


@settings(max_examples=10, deadline=None)
@given(motions, st.floats(-0.4, 0.4), st.booleans(), st.integers(0, 10**6))
def test_cells_one_by_one(motion, turn, flip, seed):
    """Every cell's centre is looked for in the earlier map, with the scene turned, scaled and mirrored in both."""
    scene = turned(turn, 0, 0)
    scene[:3, :3] *= 1.04
    scene[0] *= -1 if flip else 1
    nx, ny = GRID.shape
    bev = np.random.default_rng(seed).normal(size=(2, ny, nx))
    wanted = np.zeros_like(bev)
    key_to_earlier = scene @ inverse(turned(*motion)) @ np.linalg.inv(scene)
    for row, column in np.ndindex(ny, nx):
        here = np.array([GRID.x[0] + column + 0.5, GRID.y[0] + row + 0.5, 0, 1])
        x, y = (key_to_earlier @ here)[:2] - [GRID.x[0] + 0.5, GRID.y[0] + 0.5]
        for i in (math.floor(x), math.floor(x) + 1):
            for j in (math.floor(y), math.floor(y) + 1):
                if 0 <= i < nx and 0 <= j < ny:
                    wanted[:, row, column] += (1 - abs(x - i)) * (1 - abs(y - j)) * bev[:, j, i]
    places = sampling_grid(cameras_of(motion, scene), 1, GRID)
    got = aligned(torch.tensor(bev).float()[None], places)[0].numpy()
    np.testing.assert_allclose(got, wanted, atol=2e-4)


def test_places_of_another_batch_are_refused():
    with pytest.raises(ValueError, match=r"^places has the shape \(1, 4, 4, 2\), not \(2, any, any, 2\)$"):
        aligned(torch.rand(2, 3, 4, 4), torch.zeros(1, 4, 4, 2))
