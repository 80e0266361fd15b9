"""Non-maximum suppression: of several boxes for one object the best-scored stays.

Classes suppress each other where they share a rule. A head takes a list of rules that together name each of its classes
once; the lists of the published detectors stand below.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from models.boxes import Boxes
from models.names import CLASSES
from models.rotated_iou import iou_bev


class Nms(Protocol):
    """A rule for some classes."""

    @property
    def classes(self) -> Sequence[str]: ...

    def keep(self, boxes: Boxes) -> np.ndarray:
        """Positions of the boxes of these classes that stay, best first."""
        ...


@dataclass(frozen=True)
class CircleNms:
    """Of boxes whose centres are no farther apart than `radius` (m), the best stays (CenterPoint).

    most: boxes that stay at most.
    """

    classes: Sequence[str]
    radius: float
    most: int | None = None

    def keep(self, boxes: Boxes) -> np.ndarray:
        order = boxes.best_first()
        x, y = boxes.centers[order, :2].T
        near = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2 <= self.radius**2
        return order[_unsuppressed(near)][: self.most]


@dataclass(frozen=True)
class RotatedNms:
    """Of boxes whose outlines on the ground have an IoU above `overlap`, the best stays.

    scales: a factor per class by which outlines grow first (scale-NMS of BEVDet: pedestrians are smaller than the error
    of their places). most_before: only so many of the best boxes are looked at; most: boxes that stay at most.
    """

    scales: Mapping[str, float]
    overlap: float
    most_before: int | None = None
    most: int | None = None

    @property
    def classes(self) -> Sequence[str]:
        return tuple(self.scales)

    def keep(self, boxes: Boxes) -> np.ndarray:
        order = boxes.best_first()[: self.most_before]
        factors = np.array([self.scales.get(name, 1.0) for name in CLASSES])
        best = boxes[order]
        grown = replace(best, sizes=best.sizes * factors[best.labels, None])
        return order[_unsuppressed(iou_bev(grown, grown) > self.overlap)][: self.most]


def _unsuppressed(rivals: np.ndarray) -> np.ndarray:
    """(N,) bool: whether each of N boxes, best first, stays. rivals (N, N): whether i and j can't both stay."""
    stays = np.ones(len(rivals), bool)
    for i in range(len(rivals)):
        if stays[i]:
            stays[i + 1 :] &= ~rivals[i, i + 1 :]
    return stays


def suppressed(boxes: Boxes, rules: Sequence[Nms]) -> Boxes:
    """What the rules leave of a sample's boxes, best first. Boxes of classes that no rule names are dropped."""
    kept = [np.zeros(0, np.int64)]
    for rule in rules:
        own = np.flatnonzero(np.isin(boxes.labels, [CLASSES.index(name) for name in rule.classes]))
        kept.append(own[rule.keep(boxes[own])])
    left = boxes[np.concatenate(kept)]
    return left[left.best_first()]


_RADII = {
    "car": 2.0,
    "truck": 3.46,
    "construction_vehicle": 3.46,
    "bus": 3.16,
    "trailer": 3.16,
    "barrier": 1.0,
    "motorcycle": 0.92,
    "bicycle": 0.92,
    "pedestrian": 0.42,
    "traffic_cone": 0.42,
}


def centerpoint(least: float = 0.0) -> tuple[CircleNms, ...]:
    """CenterPoint's radii, each class by itself, none below `least` (m)."""
    return tuple(CircleNms((name,), max(radius, least)) for name, radius in _RADII.items())


CENTERPOINT = centerpoint()

# BEVDet's and BEVDet4D's: all classes against each other.
BEVDET = (
    RotatedNms(
        {
            "car": 1.0,
            "truck": 0.7,
            "construction_vehicle": 0.7,
            "bus": 0.4,
            "trailer": 0.55,
            "barrier": 1.1,
            "motorcycle": 1.0,
            "bicycle": 1.0,
            "pedestrian": 1.5,
            "traffic_cone": 3.5,
        },
        overlap=0.2,
        most_before=1000,
        most=500,
    ),
)

# That of the stereo configs, with a head of six groups.
_six = partial(RotatedNms, overlap=0.125, most_before=1000, most=83)
BEVDET_STEREO = (
    _six({"car": 0.7}),
    _six({"truck": 0.4, "construction_vehicle": 0.6}),
    _six({"bus": 0.3, "trailer": 0.4}),
    CircleNms(("barrier",), 1.0, most=83),
    _six({"motorcycle": 1.0, "bicycle": 1.0}),
    _six({"pedestrian": 1.5, "traffic_cone": 2.5}),
)
