"""The layout of the scenes, without rendering any: what is there, and that nothing touches."""

import numpy as np
import pytest

from models.names import CLASSES, EVALUATION_RANGE
from simulate.config import SimulateConfig
from simulate.footprints import overlap
from simulate.rig import EGO_BODY
from simulate.scenes import MINI_VAL, scenes_of
from simulate.shapes import SIZES, build, sample_size
from simulate.solids import stack
from simulate.traffic import INSET
from simulate.world import KEYFRAME_PERIOD, World


@pytest.fixture(scope="module")
def worlds() -> dict[str, World]:
    return {name: World(SimulateConfig(), name) for name in scenes_of(10).names}


def in_range(world: World) -> dict[str, int]:
    """Instances of each class that come within their evaluation range."""
    counts = dict.fromkeys(CLASSES, 0)
    nearest = np.full(len(world.actors), np.inf)
    for t in np.arange(0, world.duration + 0.1, KEYFRAME_PERIOD):
        offset = world.boxes(t).centers[:, :2] - world.ego_to_global(t)[:2, 3]
        nearest = np.minimum(nearest, np.linalg.norm(offset, axis=1))
    for actor, distance in zip(world.actors, nearest, strict=True):
        counts[actor.name] += distance < EVALUATION_RANGE[actor.name]
    return counts


def test_all_classes_come_into_range_in_both_splits_and_most_in_every_scene(worlds):
    counts = {name: in_range(world) for name, world in worlds.items()}
    for name in CLASSES:
        assert sum(counts[s][name] for s in MINI_VAL) >= 3, name
        assert sum(counts[s][name] for s in counts if s not in MINI_VAL) >= 12, name
    for scene, of_scene in counts.items():
        assert sum(n > 0 for n in of_scene.values()) >= 9, scene


def test_scenes_differ(worlds):
    starts = np.array([w.ego_to_global(0.0)[:2, 3] for w in worlds.values()])
    assert len(np.unique(starts.round(3), axis=0)) == len(worlds)


@pytest.mark.parametrize("name", ["scene-0061", "scene-0916"])
def test_nothing_touches(worlds, name):
    """At every half second, between all pairs: actors, the ego, buildings and trees (by an independent test)."""
    world = worlds[name]
    for t in np.arange(0.0, world.duration, 0.5):
        xy, yaw = world.traffic.poses(t)
        ego_xy, ego_yaw = world.traffic.ego_pose(t)
        ego_xy = ego_xy + EGO_BODY[0] * np.array([np.cos(ego_yaw), np.sin(ego_yaw)])
        shapes = [(*c, a.size[0] / 2, a.size[1] / 2, y, 0.0, a.size[2]) for c, y, a in zip(xy, yaw, world.actors)]
        shapes.append((*ego_xy, EGO_BODY[1] / 2, EGO_BODY[2] / 2, float(ego_yaw), 0.0, EGO_BODY[3]))
        shapes += [(*s.xy, *s.half, s.yaw, s.bottom, 99.0) for s in world.town.statics]
        movers = len(world.actors) + 1
        for i in range(movers):
            for j in range(i + 1, len(shapes)):
                low, high = max(shapes[i][5], shapes[j][5]), min(shapes[i][6], shapes[j][6])
                assert low >= high or not touch_by_sampling(shapes[i], shapes[j]), (t, i, j)


def touch_by_sampling(a, b) -> bool:
    """Whether points on the rim of one rectangle lie in the other."""
    if np.hypot(a[0] - b[0], a[1] - b[1]) > np.hypot(a[2], a[3]) + np.hypot(b[2], b[3]):
        return False
    return any(inside(rim(first), second).any() for first, second in ((a, b), (b, a)))


def rim(shape) -> np.ndarray:
    x, y, half_x, half_y, yaw = shape[:5]
    u = np.linspace(-1, 1, 21)
    edge = np.concatenate(
        [np.c_[u, 0 * u - 1], np.c_[u, 0 * u + 1], np.c_[0 * u - 1, u], np.c_[0 * u + 1, u], [[0, 0]]]
    )
    edge = edge * (half_x, half_y)
    return np.c_[
        x + np.cos(yaw) * edge[:, 0] - np.sin(yaw) * edge[:, 1], y + np.sin(yaw) * edge[:, 0] + np.cos(yaw) * edge[:, 1]
    ]


def inside(points, shape) -> np.ndarray:
    x, y, half_x, half_y, yaw = shape[:5]
    dx, dy = points[:, 0] - x, points[:, 1] - y
    along, across = np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx
    return (np.abs(along) <= half_x) & (np.abs(across) <= half_y)


def test_overlap_agrees_with_sampling():
    rng = np.random.default_rng(0)
    a = rng.uniform([-1, -1, 0.5, 0.5, -3], [1, 1, 2, 2, 3], (300, 5))
    b = rng.uniform([-3, -3, 0.5, 0.5, -3], [3, 3, 2, 2, 3], (300, 5))
    got = [overlap(p[None, :2], p[4:], p[2:4], q[None, None, :2], q[None, 4:], q[None, 2:4])[0] for p, q in zip(a, b)]
    sampled = np.array([touch_by_sampling(p, q) for p, q in zip(a, b)])
    assert not (sampled & ~np.array(got)).any()
    assert (sampled != got).mean() < 0.03  # the rim's samples miss touching corners
    assert 0.2 < sampled.mean() < 0.8


def test_ego_drives_on_its_road(worlds):
    for world in worlds.values():
        times = np.arange(0, world.duration, 0.05)
        xy, yaw = world.traffic.ego_pose(times)
        step = np.diff(xy, axis=0)
        speed = np.linalg.norm(step, axis=1) / 0.05
        assert (speed > 2).all()
        assert (speed < 14).all()
        course = np.arctan2(step[:, 1], step[:, 0])
        assert np.abs(np.angle(np.exp(1j * (course - yaw[:-1])))).max() < 0.06


def test_velocity_follows_from_positions_and_heading(worlds):
    world = worlds["scene-0103"]
    moving = np.array([a.place.moving for a in world.actors])
    before, now, after = (world.boxes(t) for t in (1.0, 1.5, 2.0))
    velocity = (after.centers - before.centers)[:, :2]
    assert np.allclose(velocity[~moving], 0)
    forward = np.stack([np.cos(now.yaws), np.sin(now.yaws)], 1)[moving]
    speed = np.linalg.norm(velocity[moving], axis=1)
    assert (speed > 0.5).all()
    assert ((velocity[moving] * forward).sum(1) > 0.97 * speed).all()
    attributes = {a.attribute for a, m in zip(world.actors, moving) if m}
    assert attributes <= {"vehicle.moving", "cycle.with_rider", "pedestrian.moving"}


@pytest.mark.parametrize("name", SIZES)
def test_shapes_fill_their_box_and_stay_inside(name):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        size = sample_size(name, rng) - 2 * INSET
        solids = stack([build(name, size, bool(seed % 2), rng)], [0], [4])
        corners = solids.corners().reshape(-1, 3)
        reach = [*(size[:2] / 2), size[2], *(size[:2] / 2), 0.0]
        assert np.allclose([*corners.max(0), *-corners.min(0)], reach, atol=1e-9)
