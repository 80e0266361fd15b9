"""Which frames a sample has, against a walk through its scene; and boxes between frames that tilt."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batches.frames import boxes_in_key_ego, boxes_in_lidar, camera_to_key_ego, frames_of
from common.errors import UserError
from models.boxes import Boxes
from models.geometry import inverse, rotation_z, transform
from models.names import CAMERAS
from storage.index import Index


@given(scenes=st.lists(st.integers(1, 4), min_size=1, max_size=4), count=st.integers(1, 4))
def test_a_frame_that_is_not_there_is_the_sample_itself(scenes, count):
    of_scene = np.repeat(np.arange(len(scenes)), scenes)
    first = np.r_[True, of_scene[1:] != of_scene[:-1]]
    index = SimpleNamespace(previous=np.where(first, -1, np.arange(len(of_scene)) - 1))
    for sample in range(len(of_scene)):
        earlier = [sample - back for back in range(count)]
        expected = [s if s >= 0 and of_scene[s] == of_scene[sample] else sample for s in earlier]
        assert frames_of(index, sample, count) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-0.7, 0.7), min_size=6, max_size=6),
    st.floats(-3, 3),
    st.sampled_from(["lidar", "camera"]),
    st.integers(0, 1000),
)
def test_boxes_come_through_tilted_frames_level(tilts, yaw, of, seed):
    """In the ego they are what BEVDet's converter makes of the global boxes; and the way back undoes the way there."""
    random, n = np.random.default_rng(seed), 4
    index = SimpleNamespace(
        cameras=CAMERAS,
        lidar_to_ego=pose(*tilts[:2], yaw)[None],
        lidar_ego_to_global=pose(*tilts[2:4], 1 - yaw)[None],
        camera_ego_to_global=np.stack([pose(*tilts[4:], yaw + 0.1 * camera) for camera in range(6)])[None],
    )
    index.lidar_to_global = partial(Index.lidar_to_global, index)
    level = Boxes(
        centers=random.normal(size=(n, 3)) * 20 + [600, 1600, 0],
        sizes=random.uniform(0.5, 5, (n, 3)),
        yaws=random.uniform(-np.pi, np.pi, n),
        velocities=random.normal(size=(n, 2)) * 5,
        labels=random.integers(0, 10, n),
    )
    ego_to_global = index.lidar_ego_to_global[0] if of == "lidar" else index.camera_ego_to_global[0, 0]
    in_lidar = level.moved(inverse(index.lidar_ego_to_global[0] @ index.lidar_to_ego[0]))  # as ingest writes them
    in_ego = boxes_in_key_ego(index, 0, in_lidar, of)
    assert_same(in_ego, level.moved(inverse(ego_to_global)))
    assert_same(boxes_in_lidar(index, 0, in_ego, of), in_lidar)


def test_the_ego_of_a_camera_that_another_car_does_not_have():
    index = SimpleNamespace(cameras=("left", "right"), camera_ego_to_global=None)
    with pytest.raises(UserError, match=r"CAM_FRONT_LEFT's image.* \(left, right\); set finetune.view.key_ego=lidar"):
        camera_to_key_ego(index, 0, [0], "camera")


def assert_same(found: Boxes, expected: Boxes) -> None:
    np.testing.assert_allclose(found.centers, expected.centers, atol=1e-8)
    np.testing.assert_allclose(np.exp(1j * found.yaws), np.exp(1j * expected.yaws), atol=1e-8)
    np.testing.assert_allclose(found.velocities, expected.velocities, atol=1e-8)


def pose(roll: float, pitch: float, yaw: float) -> np.ndarray:
    about_x, about_y = np.roll(rotation_z(roll), 1, (0, 1)), np.roll(rotation_z(pitch), -1, (0, 1))
    return transform(rotation_z(yaw) @ about_y @ about_x, np.array([600.0, 1600.0, 2.0]))
