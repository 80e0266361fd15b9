import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import nms
from models.boxes import Boxes
from models.names import CLASSES
from models.nms import CircleNms, RotatedNms, suppressed


def clipped(polygon: list, a: np.ndarray, b: np.ndarray) -> list:
    """What of a polygon lies left of the line from a to b (Sutherland and Hodgman)."""

    def side(p):
        return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])

    out = []
    for p, q in zip(polygon, polygon[1:] + polygon[:1]):
        if side(p) >= 0:
            out.append(p)
        if side(p) * side(q) < 0:
            out.append(p + (q - p) * side(p) / (side(p) - side(q)))
    return out


def area(polygon: list) -> float:
    return sum(p[0] * q[1] - p[1] * q[0] for p, q in zip(polygon, polygon[1:] + polygon[:1])) / 2


def slow_iou(a: Boxes, b: Boxes) -> float:
    """Of two single boxes' outlines: one clipped by the sides of the other."""
    one, other = (list(box.corners()[0, :4, :2]) for box in (a, b))
    common = one
    for p, q in zip(other, other[1:] + other[:1]):
        common = clipped(common, p, q)
    return area(common) / (area(one) + area(other) - area(common))


def slow_keep(boxes: Boxes, rivals, most: int | None) -> list[int]:
    """Best first, each box that no kept one rivals."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -boxes.scores[i]):
        if not any(rivals(i, j) for j in kept):
            kept.append(i)
    return kept[:most]


def random_boxes(seed: int, count: int, labels: list[int]) -> Boxes:
    random = np.random.default_rng(seed)
    return Boxes(
        centers=random.uniform(-8, 8, (count, 3)),
        sizes=random.uniform(0.3, 6, (count, 3)),
        yaws=random.uniform(-np.pi, np.pi, count),
        velocities=np.zeros((count, 2)),
        labels=random.choice(labels, count),
        scores=random.permutation(count) / 100,
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 25), st.sampled_from([None, 3]), st.sampled_from([None, 10]))
def test_rotated_equals_the_slow_one(seed, count, most, most_before):
    boxes = random_boxes(seed, count, [8, 9])
    scales = {"pedestrian": 0.6, "traffic_cone": 1.7}
    grown = replace(boxes, sizes=boxes.sizes * np.where(boxes.labels == 8, 0.6, 1.7)[:, None])
    best = boxes if most_before is None else boxes[np.argsort(-boxes.scores)[:most_before]]
    got = RotatedNms(scales, 0.15, most_before, most).keep(boxes)
    seen = [i for i in range(count) if boxes.scores[i] in best.scores]
    wanted = slow_keep(boxes[seen], lambda i, j: slow_iou(grown[[seen[i]]], grown[[seen[j]]]) > 0.15, most)
    assert got.tolist() == [seen[i] for i in wanted]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 25), st.sampled_from([None, 3]))
def test_circle_equals_the_slow_one(seed, count, most):
    boxes = random_boxes(seed, count, [0])
    got = CircleNms(("car",), 2.5, most).keep(boxes)
    wanted = slow_keep(boxes, lambda i, j: np.hypot(*(boxes.centers[i] - boxes.centers[j])[:2]) <= 2.5, most)
    assert got.tolist() == wanted


def test_classes_suppress_each_other_where_they_share_a_rule():
    boxes = Boxes(
        np.array([[0.0, 0, 0], [0.5, 0, 0], [0.2, 0, 0], [0.3, 0, 0]]),
        np.ones((4, 3)),
        np.zeros(4),
        np.zeros((4, 2)),
        np.array([0, 0, 1, 9]),
        np.array([0.6, 0.9, 0.7, 0.5]),
    )
    apart = suppressed(boxes, [CircleNms(("car",), 1.0), CircleNms(("truck",), 1.0)])
    assert list(zip(apart.labels, apart.scores)) == [(0, 0.9), (1, 0.7)]  # the cone has no rule
    together = suppressed(boxes, [CircleNms(("truck", "car", "traffic_cone"), 1.0)])
    assert list(zip(together.labels, together.scores)) == [(0, 0.9)]
    nothing = suppressed(boxes[:0], nms.BEVDET)
    assert len(nothing) == 0


def test_growing_tells_rivals_that_do_not_touch_and_leaves_sizes_alone():
    """Two cones half a metre apart are one cone."""
    cones = Boxes(
        np.array([[0.0, 0, 0], [0.5, 0, 0]]),
        np.full((2, 3), 0.4),
        np.zeros(2),
        np.zeros((2, 2)),
        np.array([9, 9]),
        np.array([0.4, 0.6]),
    )
    assert len(suppressed(cones, [RotatedNms({"traffic_cone": 1.0}, 0.2)])) == 2
    (kept,) = suppressed(cones, nms.BEVDET).sizes
    np.testing.assert_array_equal(kept, 0.4)


@pytest.mark.parametrize("rules", [nms.CENTERPOINT, nms.BEVDET, nms.BEVDET_STEREO])
def test_the_published_rules_name_every_class_once(rules):
    assert sorted(itertools.chain(*(rule.classes for rule in rules))) == sorted(CLASSES)


def test_radii_below_the_least_are_raised_and_no_other():
    radii = {rule.classes[0]: rule.radius for rule in nms.centerpoint(2.5)}
    assert radii["pedestrian"] == radii["barrier"] == radii["car"] == 2.5
    assert radii["truck"] == 3.46
    assert nms.centerpoint() == nms.CENTERPOINT
