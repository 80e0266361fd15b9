"""Voxels against slow, obvious references, and the written folder."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.geometry import apply, inverse, rotation_z, transform
from models.names import CATEGORY_TO_CLASS, FREE, OCCUPANCY_CLASSES
from models.occupancy import LOW, SHAPE, VOXEL
from simulate.config import SimulateConfig
from simulate.occupancy import (
    LINES,
    Eye,
    _targets,
    _walk,
    camera_mask,
    lidar_mask,
    voxel_labels,
)  # fmt: skip
from simulate.rig import RIG, image_size
from simulate.town import CELL, DRIVABLE, TERRAIN
from simulate.world import World


@pytest.fixture(scope="module")
def world() -> World:
    return World(SimulateConfig(keyframes=3, density=0.6), "scene-0103")


def centre(*voxel: int) -> np.ndarray:
    return np.array(LOW) + (np.array(voxel) + 0.5) * VOXEL


def test_voxels_are_what_stands_in_them(world):
    """Random voxels against points on the same lines, tested one by one against every solid's planes."""
    ego_to_global, rng = world.ego_to_global(0.5), np.random.default_rng(0)
    solids = world.solids(0.5)
    labels = voxel_labels(solids, ego_to_global, world.town.ground)
    occupied = np.argwhere((labels != FREE) & (labels != TERRAIN) & (labels != DRIVABLE))
    chosen = np.concatenate([rng.permutation(occupied)[:150], rng.integers(0, SHAPE, (150, 3))])
    offsets = ((np.arange(LINES) + 0.5) / LINES - 0.5) * VOXEL
    heights = (np.linspace(0, 1, 80)[:-1] + 1 / 160 - 0.5) * VOXEL
    grid = np.stack(np.meshgrid(offsets, offsets, heights, indexing="ij"), -1).reshape(-1, 3)
    agree = []
    for voxel in chosen:
        points = apply(ego_to_global, centre(*voxel) + grid)
        inside = []
        reach = np.linalg.norm(solids.half, axis=1) + VOXEL
        for p in np.flatnonzero(np.linalg.norm(solids.center - points.mean(0), axis=1) < reach):
            planes = solids.planes[solids.offsets[p] : solids.offsets[p + 1]]
            if (points @ planes[:, :3].T <= planes[:, 3]).all(1).any():
                inside.append(solids.label[p])
        if inside:
            expected = inside[-1]
        else:
            ground = apply(ego_to_global, centre(*voxel)[None])[0]
            meets = abs(ground[2]) < VOXEL / 2
            row, column = int(ground[1] // CELL), int(ground[0] // CELL)
            shape = world.town.ground.label.shape
            painted = 0 <= row < shape[0] and 0 <= column < shape[1]
            expected = (world.town.ground.label[row, column] if painted else TERRAIN) if meets else FREE
        agree.append(expected == labels[tuple(voxel)])
    assert np.mean(agree) > 0.99  # points 5 mm apart miss slivers


def test_annotated_boxes_are_full_of_their_class(world):
    boxes = world.boxes(1.0).moved(inverse(world.ego_to_global(1.0)))
    labels = voxel_labels(world.solids(1.0), world.ego_to_global(1.0), world.town.ground)
    found = 0
    for box, name in zip(range(len(boxes)), [a.name for a in world.actors]):
        index = np.floor((boxes.centers[box] - LOW) / VOXEL).astype(int)
        if name in ("car", "bus", "trailer") and ((index >= 0) & (index < SHAPE)).all():
            assert OCCUPANCY_CLASSES[labels[tuple(index)]] == name
            found += 1
    assert found > 3
    assert set(CATEGORY_TO_CLASS.values()) < set(OCCUPANCY_CLASSES)


def crossed(start, end) -> set[tuple[int, ...]]:
    """The voxels of a line, from its sorted crossings of all grid planes: the middle of each piece is in one voxel."""
    shares = [0.0, 1.0]
    for a, b in zip(start, end):
        planes = np.arange(np.floor(min(a, b)), np.ceil(max(a, b)) + 1)
        if a != b:
            shares += [t for t in (planes - a) / (b - a) if 0 < t < 1]
    shares = np.unique(shares)
    middles = (shares[1:] + shares[:-1]) / 2
    long = np.diff(shares) > 1e-9
    return {tuple(np.floor(start + t * (end - start)).astype(int)) for t in middles[long]}


coordinate = st.floats(0.01, 7.99)


@settings(deadline=None, max_examples=200)
@given(st.tuples(coordinate, coordinate, coordinate), st.tuples(*[st.floats(-3, 11)] * 3))
def test_a_line_passes_the_voxels_it_crosses(start, end):
    start, end = np.array(start), np.array(end)
    visible = np.zeros((8, 8, 8), np.uint8)
    _walk(visible, visible, *start, *end, False)
    expected = {v for v in crossed(start, end) if all(0 <= i < 8 for i in v)}
    got = set(map(tuple, np.argwhere(visible)))
    # A line through an edge touches voxels in a point: either answer is right there.
    for voxel in got ^ expected:
        assert crossed_length(start, end, voxel) < 1e-6


def crossed_length(start, end, voxel) -> float:
    low, high = 0.0, 1.0
    for a, b, v in zip(start, end, voxel):
        if a == b:
            if not v <= a <= v + 1:
                return 0.0
            continue
        near, far = sorted(((v - a) / (b - a), (v + 1 - a) / (b - a)))
        low, high = max(low, near), min(high, far)
    return max(0.0, high - low)


def test_cameras_see_up_to_the_first_thing_in_the_way():
    """A wall before a camera hides what stands behind it; what is outside the image is not seen."""
    labels = np.full(SHAPE, FREE, np.uint8)
    labels[120, 95:105, :] = 15  # 8 m before the ego, 4 m wide
    labels[130, 100, 5] = 4  # behind the wall
    labels[80, 100, 5] = 4  # behind the camera
    camera = RIG[0]
    size = image_size(0.25)
    visible = camera_mask(labels, [Eye(camera.to_ego(), camera.intrinsics(size), np.array(size))])
    assert visible[120, 96:104, 5].all()
    assert visible[110, 100, 5] == 1
    assert not visible[121:140, 98:103, 5].any()
    assert not visible[:100].any()
    assert visible[150, 78, 5] == 1  # beside the wall
    assert _targets(labels)[120, 96, 5]


def test_what_cameras_see_no_voxel_hides(world):
    """Seen voxels of surfaces against the line from the camera, sampled finely."""
    ego_to_global = world.ego_to_global(0.5)
    labels = voxel_labels(world.solids(0.5), ego_to_global, world.town.ground)
    camera, size = RIG[0], image_size(0.25)
    eye = Eye(camera.to_ego(), camera.intrinsics(size), np.array(size))
    visible, rng = camera_mask(labels, [eye]), np.random.default_rng(1)
    origin = (eye.camera_to_ego[:3, 3] - LOW) / VOXEL
    targets = rng.permutation(np.argwhere(_targets(labels)))[:4000]
    checked = 0
    for voxel in targets:
        pixel = eye.intrinsics @ apply(inverse(eye.camera_to_ego), centre(*voxel)[None])[0]
        if pixel[2] <= 0 or not (pixel[:2] / pixel[2] >= 0).all() or not (pixel[:2] / pixel[2] < size).all():
            continue
        way = origin + np.linspace(0, 1, 3000)[:, None] * (voxel + 0.5 - origin)
        met = np.flatnonzero(labels[tuple(np.floor(way).astype(int).T)] != FREE)
        first = np.floor(way[met[0] if len(met) else -1]).astype(int)
        assert visible[tuple(first)] == 1
        checked += 1
    assert checked > 200
    assert 0.02 < visible.mean() < 0.4


def test_the_lidar_sees_what_its_beams_pass():
    points = np.array([[10.0, 0.3, 0.1], [0.9, -500.0, 1.0]])
    visible = lidar_mask(np.array([0.944, 0.0, 1.84]), points)
    assert visible[tuple(np.floor((points[0] - LOW) / VOXEL).astype(int))] == 1
    assert visible[102, 0].any()  # the second leaves the grid at its right border
    assert visible.sum() < 200


def test_turning_the_world_turns_the_voxels(world):
    """Half a turn of the ego about its axis reverses x and y."""
    pose = transform(rotation_z(0.3), np.array([*world.ego_to_global(0.0)[:2, 3], 0.0]))
    turned = pose @ transform(rotation_z(np.pi), np.zeros(3))
    solids = world.solids(0.0)
    one, other = (voxel_labels(solids, p, world.town.ground) for p in (pose, turned))
    assert (one == other[::-1, ::-1]).mean() > 0.9995
