from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batches.lidar import LidarAugmentation, SceneDraw, augmented, draw_scene, pasted
from common.errors import DataError
from dataroot.points import load_points, read_cloud
from models.boxes import Boxes


def write(path, rows):
    np.array(rows, np.float32).tofile(path)


@pytest.fixture
def index(tmp_path):
    write(tmp_path / "key.bin", [[0.5, 0.5, 0, 200, 7], [10, 20, 1, 100, 3]])
    write(tmp_path / "near.bin", [[0.5, -0.5, 0, 9, 1], [0.5, 5, 0, 9, 1], [5, 0.5, 2, 9, 1]])
    write(tmp_path / "far.bin", [[3, 3, 3, 1, 1]])
    turn = np.array([[0.0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, -1], [0, 0, 0, 1]])  # a quarter turn, then a shift
    return SimpleNamespace(
        lidar_columns=5,
        lidar_path=["key.bin"],
        lidar_timestamp=np.array([1_000_000]),
        sweep_count=np.array([2]),
        sweep_path=np.array([["near.bin", "far.bin", ""]]),
        sweep_timestamp=np.array([[950_000, 900_000, 0]]),
        sweep_to_lidar=np.array([[turn, np.eye(4), np.full((4, 4), np.nan)]]),
    )


def test_key_sweep_stays_whole_and_its_ring_becomes_its_age(index, tmp_path):
    assert load_points(index, tmp_path, 0, 0).tolist() == [[0.5, 0.5, 0, 200, 0], [10, 20, 1, 100, 0]]


def test_sweeps_are_moved_aged_and_rid_of_the_car(index, tmp_path):
    points = load_points(index, tmp_path, 0, 1)
    assert points.dtype == np.float32
    assert len(points) == 4
    # (x, y, z) -> (-y + 10, x + 20, z - 1)
    np.testing.assert_allclose(points[2], [5, 20.5, -1, 9, 0.05], atol=1e-6)
    np.testing.assert_allclose(points[3], [9.5, 25, 1, 9, 0.05], atol=1e-6)


def test_a_short_history_stays_short(index, tmp_path):
    points = load_points(index, tmp_path, 0, 10)
    assert len(points) == 5
    np.testing.assert_allclose(points[4], [3, 3, 3, 1, 0.1], atol=1e-6)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing"),
        (b"", "0 bytes are no point cloud"),
        (b"x" * 39, "39 bytes are no point cloud"),
        (np.array([1, 2, 3, np.nan, 0], np.float32).tobytes(), "1 of 1 points hold NaN"),
        (np.array([1, np.inf, 3, 4, 0], np.float32).tobytes(), "1 of 1 points hold NaN, infinity"),
        (np.array([1, 2, -1e30, 4, 0], np.float32).tobytes(), ".*places over 100 km away"),
    ],
)
def test_a_file_that_is_gone_or_damaged_since_ingest_is_named(index, tmp_path, content, words):
    for name, sweeps in (("key.bin", 0), ("near.bin", 1)):
        path = tmp_path / name
        before = path.read_bytes()
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}: {words}"):
            load_points(index, tmp_path, 0, sweeps)
        path.write_bytes(before)


@pytest.mark.parametrize("columns", [4, 5, 6])
def test_the_index_says_how_many_columns_a_file_has(index, tmp_path, columns):
    random = np.random.default_rng(0)
    points = random.normal(scale=9, size=(60, columns)).astype(np.float32)
    points.tofile(tmp_path / "key.bin")
    index.lidar_columns = columns
    np.testing.assert_array_equal(load_points(index, tmp_path, 0, 0), np.c_[points[:, :4], np.zeros(60)])
    np.testing.assert_array_equal(read_cloud(tmp_path / "key.bin", columns), points[:, :4])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.booleans(), st.floats(-3, 3), st.floats(0.5, 2))
def test_a_scene_is_turned_then_scaled_then_mirrored(seed, flip_x, flip_y, rotation, scale):
    """By hand, as BEVDet does: yaw + rotation, then pi - yaw, then -yaw; velocities go through the whole matrix."""
    random = np.random.default_rng(seed)
    boxes = Boxes(
        random.uniform(-20, 20, (4, 3)),
        random.uniform(1, 5, (4, 3)),
        random.uniform(-3, 3, 4),
        random.normal(size=(4, 2)),
        np.arange(4),
    )
    boxes.velocities[0] = np.nan
    _, after = augmented(np.zeros((0, 5)), boxes, SceneDraw(rotation, scale, flip_x, flip_y).matrix())
    c, s = np.cos(rotation), np.sin(rotation)
    for got, before in ((after.centers[:, :2], boxes.centers[:, :2]), (after.velocities, boxes.velocities)):
        x, y = scale * (c * before[:, 0] - s * before[:, 1]), scale * (s * before[:, 0] + c * before[:, 1])
        np.testing.assert_allclose(got, np.c_[-x if flip_x else x, -y if flip_y else y], atol=1e-9)
    yaws = boxes.yaws + rotation
    yaws = np.pi - yaws if flip_x else yaws
    yaws = -yaws if flip_y else yaws
    np.testing.assert_allclose(np.exp(1j * after.yaws), np.exp(1j * yaws), atol=1e-9)
    np.testing.assert_allclose(after.sizes, boxes.sizes * scale)
    np.testing.assert_allclose(after.centers[:, 2], boxes.centers[:, 2] * scale)


def test_draws_of_a_scene_keep_to_their_limits():
    random = np.random.default_rng(0)
    draws = [draw_scene(random, (-0.4, 0.2), (0.9, 1.2), (0.0, 1.0)) for _ in range(200)]
    for values, low, high in (([d.rotation for d in draws], -0.4, 0.2), ([d.scale for d in draws], 0.9, 1.2)):
        assert low <= min(values) < low + 0.02
        assert high - 0.02 < max(values) <= high
    assert not any(draw.flip_x for draw in draws)
    assert all(draw.flip_y for draw in draws)
    np.testing.assert_array_equal(LidarAugmentation(False, 0.0, 0.0).draw(random), np.eye(3))


@pytest.mark.parametrize("seed", range(8))
def test_augmentation_moves_points_and_boxes_together(seed):
    """Points of a box's corners and of its front's middle stay where the box is; velocity turns along."""
    random = np.random.default_rng(seed)
    boxes = Boxes(
        random.uniform(-20, 20, (5, 3)),
        random.uniform(1, 5, (5, 3)),
        random.uniform(-3, 3, 5),
        random.normal(size=(5, 2)),
        np.arange(5),
    )
    front = boxes.corners()[:, [0, 3, 4, 7]].mean(1)
    corners = np.concatenate([boxes.corners().reshape(-1, 3), front])
    points = np.c_[corners, np.zeros((len(corners), 2))].astype(np.float32)
    matrix = LidarAugmentation(True, 0.5, 0.1).draw(random)
    moved, after = augmented(points, boxes, matrix)
    assert matrix[2, 2] == pytest.approx(abs(np.linalg.det(matrix[:2, :2])) ** 0.5)
    got, wanted = moved[:40, :3].reshape(5, 8, 3), after.corners()
    for a, b in zip(got, wanted):  # mirroring changes the corners' order
        assert np.abs(a[:, None] - b[None]).sum(-1).min(1).max() < 1e-3
    np.testing.assert_allclose(moved[40:, :3], after.corners()[:, [0, 3, 4, 7]].mean(1), atol=1e-4)
    np.testing.assert_allclose(after.velocities, boxes.velocities @ matrix[:2, :2].T)
    assert np.array_equal(moved[:, 3:], points[:, 3:])
    assert np.array_equal(points[:, :3], corners.astype(np.float32))


def test_pasted_objects_take_free_places_only():
    def boxes(*xy, label):
        n = len(xy)
        centers = np.c_[np.array(xy, float).reshape(n, 2), np.zeros(n)]
        return Boxes(centers, np.full((n, 3), 2.0), np.full(n, 0.3), np.zeros((n, 2)), np.full(n, label))

    def cloud(*xyz, mark):
        return np.array([[*p, mark, 0] for p in xyz], np.float32)

    own, other = boxes((0, 0), label=1), boxes((1.5, 0), (10, 0), (10, 1), (20, 0), label=2)
    points = cloud((0, 0, 0), (10, 0.5, 0), (20, 0, 0), (20, 5, 0), mark=1)
    other_points = cloud((1.5, 0, 0), (10, 0, 0), (10, 1.2, 0), (20, 0.5, 0.5), (30, 0, 0), mark=2)
    for seed in range(4):
        got, truth = pasted(points, own, other_points, other, 9, np.random.default_rng(seed))
        assert sorted(truth.labels.tolist()) == [1, 2, 2]  # of the two boxes at x = 10 one; that at 1.5 has no room
        inside = truth.contains(got[:, :3])
        assert (got[inside[1:].any(0), 3] == 2).all()  # what stood in their places before is gone
        assert got[(got[:, 3] == 1) & (got[:, 0] == 20), 1].tolist() == [5.0]
        assert not (got[:, 0] == 30).any()
    few, truth = pasted(points, own, other_points, other, 0, np.random.default_rng(0))
    np.testing.assert_array_equal(few, points)
    assert len(truth) == 1
