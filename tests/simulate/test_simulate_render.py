"""The fast casts against a direct one, and cameras against the LiDAR."""

import numpy as np
import pytest

from models.geometry import apply, inverse, project, rotation_z, transform
from simulate.cast import GROUND, SAMPLES, SHADOW_CELL, SKY, cast_camera, cast_lidar, cast_shadows
from simulate.config import SimulateConfig
from simulate.rig import FULL_SIZE, LIDAR_TO_EGO, RIG, image_size, lidar_directions
from simulate.shade import shade
from simulate.solids import Paint, ball, join, prism, stack, tapered
from simulate.world import World

T = 0.7  # s


@pytest.fixture(scope="module")
def world() -> World:
    return World(SimulateConfig(keyframes=3), "scene-0103")


def first_hit(solids, origin, direction) -> tuple[float, int]:
    """Distance (in lengths of direction) and number of the first solid or ground on a ray: one plane at a time."""
    best, which = np.inf, SKY
    if direction[2] < 0:
        best, which = -origin[2] / direction[2], GROUND
    for p in range(len(solids.center)):
        enter, leave = 0.0, np.inf
        for *normal, offset in solids.planes[solids.offsets[p] : solids.offsets[p + 1]]:
            slope, room = np.dot(normal, direction), offset - np.dot(normal, origin)
            if slope < 0:
                enter = max(enter, room / slope)
            elif room < 0:
                leave = -1.0
            elif slope > 0:
                leave = min(leave, room / slope)
        if 0 < enter <= leave and enter < best:
            best, which = enter, p
    return best, which


def camera_of(world, camera, size):
    return world.ego_to_global(T) @ camera.to_ego(), camera.intrinsics(size)


@pytest.mark.parametrize("camera", RIG[::2], ids=lambda c: c.name)
def test_camera_depth_is_the_first_hit(world, camera):
    size = image_size(0.1)
    to_global, intrinsics = camera_of(world, camera, size)
    solids = world.solids(T)
    view = cast_camera(solids, to_global, intrinsics, size, len(world.actors))
    rng = np.random.default_rng(0)
    different = 0
    for _ in range(40):
        row, column = rng.integers(size[1] * SAMPLES), rng.integers(size[0] * SAMPLES)
        pixel = np.array([(column + 0.5) / SAMPLES, (row + 0.5) / SAMPLES, 1.0])
        ray = to_global[:3, :3] @ np.linalg.inv(intrinsics) @ pixel
        depth, which = first_hit(solids, to_global[:3, 3], ray)
        different += which != view.solid[row, column]
        if which == view.solid[row, column]:
            assert view.depth[row, column] == pytest.approx(depth, rel=1e-5)
    assert different == 0


def test_lidar_range_is_the_first_hit(world):
    to_global, directions = world.ego_to_global(T) @ LIDAR_TO_EGO, lidar_directions()
    quiet = np.stack([np.zeros(directions.shape[:2]), np.ones(directions.shape[:2])], -1)
    points = cast_lidar(world.solids(T), to_global, directions, world.town.ground, quiet)
    assert points.dtype == np.float32
    assert len(points) > 20_000
    ring = np.arcsin(points[:, 2] / np.linalg.norm(points[:, :3], axis=1))
    assert np.allclose(ring, np.deg2rad(np.linspace(-30.67, 10.67, 32))[points[:, 4].astype(int)], atol=1e-4)
    solids = world.solids(T)
    for i in np.random.default_rng(0).choice(len(points), 40, replace=False):
        distance = np.linalg.norm(points[i, :3].astype(np.float64))
        ray = to_global[:3, :3] @ (points[i, :3] / distance)
        assert first_hit(solids, to_global[:3, 3], ray)[0] == pytest.approx(distance, rel=1e-5, abs=1e-4)


def test_a_lidar_of_short_reach_returns_the_near_points_of_a_long_one(world):
    to_global, directions = world.ego_to_global(T) @ LIDAR_TO_EGO, lidar_directions()
    quiet = np.stack([np.zeros(directions.shape[:2]), np.ones(directions.shape[:2])], -1)
    whole, near = (cast_lidar(world.solids(T), to_global, directions, world.town.ground, quiet, r) for r in (100, 20))
    assert 0 < len(near) < len(whole)
    np.testing.assert_array_equal(near, whole[np.linalg.norm(whole[:, :3].astype(np.float64), axis=1) <= 20.0])


@pytest.mark.parametrize("camera", RIG, ids=lambda c: c.name)
def test_cameras_and_lidar_see_the_same_world(world, camera):
    """LiDAR points in a camera's image have that pixel's depth, but where the two look past different edges."""
    size = image_size(0.25)
    ego, directions = world.ego_to_global(T), lidar_directions()
    quiet = np.stack([np.zeros(directions.shape[:2]), np.ones(directions.shape[:2])], -1)
    points = cast_lidar(world.solids(T), ego @ LIDAR_TO_EGO, directions, world.town.ground, quiet)[:, :3]
    to_global, intrinsics = camera_of(world, camera, size)
    view = cast_camera(world.solids(T), to_global, intrinsics, size, len(world.actors))
    pixels, depth = project(apply(inverse(to_global) @ ego @ LIDAR_TO_EGO, points.astype(np.float64)), intrinsics)
    column, row = np.floor(pixels * SAMPLES).T
    inside = (depth > 1) & (column >= 0) & (row >= 0) & (column < size[0] * SAMPLES) & (row < size[1] * SAMPLES)
    assert inside.sum() > 500
    seen = view.depth[row[inside].astype(int), column[inside].astype(int)]
    error = np.abs(seen - depth[inside]) / depth[inside]
    assert np.median(error) < 0.01
    assert (error < 0.03).mean() > 0.85


def test_counts_of_rays_that_meet_an_object():
    near = tapered((0.5, 0.5, 1.0), Paint((1, 1, 1))).at((5, 0, 1))
    far = [
        tapered((0.5, 2.0, 1.0), Paint((1, 1, 1))).at((10, 0, 1)),
        tapered((0.5, 2.0, 1.0), Paint((1, 1, 1))).at((10.2, 0, 1)),
    ]
    solids = stack([[near], far], [0, 1], [4, 4])
    camera = RIG[0]
    size = image_size(0.1)
    pose = camera.to_ego()
    view = cast_camera(solids, pose, camera.intrinsics(size), size, 2)
    alone = cast_camera(stack([far], [1], [4]), pose, camera.intrinsics(size), size, 2)
    assert view.alone[0] == view.visible[0] > 0
    assert view.alone[1] == alone.visible[1] > view.visible[1] > 0


def test_shadow_map_is_a_cast_towards_the_sun():
    solids = stack(
        [[prism((1, 1.5, 2), Paint((1, 1, 1))).at((8, 8, 2)), ball((1, 1, 1), Paint((1, 1, 1))).at((12, 9, 3))]],
        [-1],
        [15],
    )
    sun = np.array([0.5, 0.3, 0.6]) / np.linalg.norm([0.5, 0.3, 0.6])
    shadows = np.zeros((100, 100), np.float32)
    cast_shadows(solids, sun, shadows)
    for row in range(0, 100, 3):
        for column in range(0, 100, 3):
            foot = np.array([(column + 0.5) * SHADOW_CELL, (row + 0.5) * SHADOW_CELL, 1e-6])
            hit = first_hit(solids, foot, sun)[1] != SKY or inside_any(solids, foot)
            assert (shadows[row, column] > 0) == hit
    assert 0.01 < (shadows > 0).mean() < 0.5


def inside_any(solids, point) -> bool:
    room = solids.planes[:, 3] - solids.planes[:, :3] @ point
    return any((room[a:b] >= 0).all() for a, b in zip(solids.offsets, solids.offsets[1:]))


def test_moved_and_join_keep_the_geometry():
    rng = np.random.default_rng(0)
    solids = stack(
        [[tapered((1, 2, 3), Paint((1, 1, 1)), (0.5, 0.8))], [ball((1, 1, 2), Paint((1, 1, 1))).at((4, 0, 1))]],
        [0, 1],
        [4, 16],
    )
    pose = transform(rotation_z(0.7), np.array([3.0, -2.0, 1.0]))
    moved = solids.moved(pose[:3, :3], pose[:3, 3])
    points = rng.uniform(-5, 6, (2000, 3))
    for p in points[:200]:
        assert inside_any(solids, p) == inside_any(moved, apply(pose, p[None])[0])
    both = join(solids, moved)
    assert len(both.center) == 4
    assert both.offsets[-1] == len(both.planes) == 2 * len(solids.planes)


def test_pictures_vary_and_lit_faces_are_brighter():
    white = Paint((0.6, 0.6, 0.6))
    solids = stack([[tapered((1, 1, 1), white).at((60, 60, 1), rotation_z(np.pi / 4))]], [-1], [15])
    world = World(SimulateConfig(keyframes=2, density=0.1), "scene-0061")
    sun = np.array([-0.3, 0.8, 0.52])
    light = world.light._replace(sun=sun / np.linalg.norm(sun), cloud=0.0, sun_colour=np.ones(3) * 3)
    # From x = 52 two faces show: the one towards +y (left in the picture) is lit, the other is not.
    pose = transform(rotation_z(0.0), np.array([52.0, 60.0, 1.0])) @ transform(RIG[0].to_ego()[:3, :3], np.zeros(3))
    size, intrinsics = (160, 90), np.diag([90 / FULL_SIZE[1]] * 2 + [1.0]) @ RIG[0].intrinsics(FULL_SIZE)
    view = cast_camera(solids, pose, intrinsics, size, 0)
    shadows = np.zeros((1000, 1000), np.float32)
    cast_shadows(solids, light.sun, shadows)
    image = shade(view, solids, pose, intrinsics, world.town.ground, shadows, light)
    assert image.shape == (90, 160, 3)
    assert image.std() > 10
    on_box = view.solid[::SAMPLES, ::SAMPLES] == 0
    columns = np.flatnonzero(on_box.any(0))
    middle = (columns[0] + columns[-1]) // 2
    left, right = on_box.copy(), on_box.copy()
    left[:, middle:], right[:, :middle] = False, False
    assert image[left].mean() > 1.3 * image[right].mean()
