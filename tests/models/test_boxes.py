import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import points_in_box
from pyquaternion import Quaternion

from models.boxes import Boxes
from models.geometry import inverse, rotation_z, transform


def random_boxes(n, seed=0):
    rng = np.random.default_rng(seed)
    return Boxes(
        centers=rng.normal(scale=20, size=(n, 3)),
        sizes=rng.uniform(0.3, 8, size=(n, 3)),
        yaws=rng.uniform(-np.pi, np.pi, n),
        velocities=rng.normal(size=(n, 2)),
        labels=rng.integers(0, 10, n),
    )


def devkit(boxes):
    return [
        Box(c, s, Quaternion(q)) for c, s, q in zip(boxes.centers, boxes.sizes_wlh(), boxes.quaternions(), strict=True)
    ]


def test_corners_are_the_devkits():
    boxes = random_boxes(20)
    for mine, theirs in zip(boxes.corners(), devkit(boxes), strict=True):
        difference = np.linalg.norm(mine[:, None] - theirs.corners().T[None], axis=-1)
        assert (difference.min(1) < 1e-9).all()
        assert sorted(difference.argmin(1)) == list(range(8))


def test_contains_is_the_devkits_points_in_box():
    boxes = random_boxes(10)
    points = np.random.default_rng(1).normal(scale=20, size=(5000, 3))
    points[:1000] = boxes.centers.repeat(100, 0) + np.random.default_rng(2).normal(size=(1000, 3))
    for mine, theirs in zip(boxes.contains(points), devkit(boxes), strict=True):
        np.testing.assert_array_equal(mine, points_in_box(theirs, points.T))


@given(st.floats(-3.1, 3.1), st.floats(-50, 50), st.floats(-50, 50))
def test_moving_there_and_back(yaw, x, y):
    boxes = random_boxes(5)
    a_to_b = transform(rotation_z(yaw), np.array([x, y, 1.0]))
    back = boxes.moved(a_to_b).moved(inverse(a_to_b))
    np.testing.assert_allclose(back.centers, boxes.centers, atol=1e-9)
    np.testing.assert_allclose(np.exp(1j * back.yaws), np.exp(1j * boxes.yaws), atol=1e-9)
    np.testing.assert_allclose(back.velocities, boxes.velocities, atol=1e-9)


def test_nuscenes_fields_round_trip():
    boxes = random_boxes(7)
    again = Boxes.from_nuscenes(boxes.centers, boxes.sizes_wlh(), boxes.quaternions(), boxes.velocities, boxes.labels)
    for name in ("centers", "sizes", "yaws", "velocities", "labels"):
        np.testing.assert_allclose(getattr(again, name), getattr(boxes, name), atol=1e-12)


@pytest.mark.parametrize("select", [slice(0, 0), [0, 2], np.array([True, False, True])])
def test_selecting(select):
    boxes = random_boxes(3)
    assert len(boxes[select]) == len(boxes.centers[select])
    assert boxes[select].scores is None


def test_no_boxes():
    none = Boxes.empty()
    assert len(none) == 0
    assert none.corners().shape == (0, 8, 3)
    assert none.contains(np.zeros((4, 3))).shape == (0, 4)
    assert len(none.moved(np.eye(4))) == 0


def test_boxes_are_joined_and_keep_scores_only_where_all_have_them():
    one = Boxes(np.ones((2, 3)), np.ones((2, 3)), np.zeros(2), np.zeros((2, 2)), np.array([0, 1]), np.array([0.5, 0.6]))
    both = Boxes.joined([one, one[1:]])
    assert both.labels.tolist() == [0, 1, 1]
    assert both.scores.tolist() == [0.5, 0.6, 0.6]
    assert Boxes.joined([one, Boxes.empty()]).scores is None


def test_centred_in_looks_at_x_and_y_alone():
    centers = np.array([[0.0, 0, 99], [1.0, 0, 0], [-1.5, 0, 0], [0, 2.1, 0], [0.9, -1.9, 0]])
    boxes = Boxes(centers, np.full((5, 3), 9.0), np.zeros(5), np.zeros((5, 2)), np.zeros(5, int))
    assert boxes.centred_in(np.array([-1, -2]), np.array([1, 2])).tolist() == [True, False, False, False, True]
