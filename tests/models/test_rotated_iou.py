import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import Polygon

from models.boxes import Boxes
from models.rotated_iou import iou_3d, iou_bev


def random_boxes(seed: int, count: int) -> Boxes:
    random = np.random.default_rng(seed)
    return Boxes(
        centers=random.uniform(-3, 3, (count, 3)) * [1, 1, 0.1],
        sizes=random.uniform(0.3, 6, (count, 3)),
        yaws=random.uniform(-np.pi, np.pi, count),
        velocities=np.zeros((count, 2)),
        labels=np.zeros(count, int),
    )


def slow_iou(a: Boxes, b: Boxes) -> tuple[np.ndarray, np.ndarray]:
    """(N, M) of the outlines and of the volumes; box by box, the outlines' intersection by shapely."""
    bev, volume = np.zeros((len(a), len(b))), np.zeros((len(a), len(b)))
    for i, j in itertools.product(range(len(a)), range(len(b))):
        plan_a, plan_b = Polygon(a.corners()[i, :4, :2]), Polygon(b.corners()[j, :4, :2])
        area = plan_a.intersection(plan_b).area
        bev[i, j] = area / plan_a.union(plan_b).area
        top = min(a.corners()[i, 4, 2], b.corners()[j, 4, 2])
        bottom = max(a.corners()[i, 0, 2], b.corners()[j, 0, 2])
        shared = area * max(0.0, top - bottom)
        volume[i, j] = shared / (a.sizes[i].prod() + b.sizes[j].prod() - shared)
    return bev, volume


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 6), st.integers(0, 6))
def test_iou_equals_shapelys(seed, n, m):
    a, b = random_boxes(seed, n), random_boxes(seed + 1, m)
    bev, volume = slow_iou(a, b)
    assert iou_3d(a, b).shape == iou_bev(a, b).shape == (n, m)
    np.testing.assert_allclose(iou_3d(a, b), volume, atol=1e-9)
    np.testing.assert_allclose(iou_bev(a, b), bev, atol=1e-9)


def test_iou_of_boxes_that_share_sides_and_corners():
    def box(x, y, length, width, yaw=0.0, z=0.0):
        return Boxes(
            np.array([[x, y, z]]), np.array([[length, width, 2.0]]), np.array([yaw]), np.zeros((1, 2)), np.array([0])
        )

    one = box(1, 2, 4, 2, 0.7)
    for other, wanted in (
        (one, 1.0),
        (box(1, 2, 4, 2, 0.7 + np.pi), 1.0),
        (box(1, 2, 2, 4, 0.7 - np.pi / 2), 1.0),
        (box(1, 2, 4, 2, 0.7 + 1e-9), 1.0),
        (box(1, 2, 2, 1, 0.7), 0.25),  # inside, concentric
        (box(1, 2, 4, 2, 0.7, z=1.0), 1 / 3),
        (box(1, 2, 4, 2, 0.7, z=2.0), 0.0),  # on top
        (box(1 + 4 * np.cos(0.7), 2 + 4 * np.sin(0.7), 4, 2, 0.7), 0.0),  # end to end
    ):
        assert iou_3d(one, other)[0, 0] == pytest.approx(wanted, abs=1e-6)
        assert iou_3d(other, one)[0, 0] == pytest.approx(wanted, abs=1e-6)
        above = other.centers[0, 2] != one.centers[0, 2]
        assert iou_bev(one, other)[0, 0] == pytest.approx(1 if above else wanted, abs=1e-6)


def test_boxes_without_a_size_share_nothing():
    empty = Boxes(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(2), np.zeros((2, 2)), np.zeros(2, int))
    assert iou_bev(empty, empty).max() == iou_3d(empty, empty).max() == 0
    assert iou_bev(empty, random_boxes(0, 3)).max() == 0
