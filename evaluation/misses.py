"""Which true boxes a detector missed and which of its boxes are false: the samples to look at first."""

from dataclasses import dataclass

import numpy as np

from evaluation.ground_truth import ground_truth
from evaluation.metrics import DISTANCES, ERRORS_AT
from models.boxes import Boxes
from models.names import CLASSES, EVALUATION_RANGE
from storage.index import Index

RANGES = np.array([EVALUATION_RANGE[name] for name in CLASSES])  # m from the ego, by class
MATCHED = DISTANCES[ERRORS_AT]  # m between centres, where the official evaluation measures errors
MIN_SCORE = 0.2  # of a predicted box that is looked at
ALWAYS = 10  # boxes a sample are looked at whatever they score


@dataclass(frozen=True)
class Misses:
    """A sample's boxes in its LIDAR_TOP frame, by what became of them."""

    detected: Boxes  # true ones that a prediction takes
    missed: Boxes  # true ones that none takes
    correct: Boxes  # predictions that take a true one
    false: Boxes  # predictions that take none

    @property
    def count(self) -> int:
        return len(self.missed) + len(self.false)

    def by_class(self) -> dict[str, dict[str, int]]:
        """How many of each class were missed, and how many are false."""
        return {name: by_class(getattr(self, name)) for name in ("missed", "false")}


def misses(index: Index, sample: int, predicted: Boxes, min_score: float = MIN_SCORE, always: int = ALWAYS) -> Misses:
    """Match predicted boxes with the true ones, as the official evaluation does: the better a box's score, the earlier.

    Each takes the nearest free true box of its class within MATCHED. Left out are boxes that the evaluation leaves out
    for their distance from the ego, and of the others predicted ones that score below `min_score`, but never the
    `always` best. predicted: best first.
    """
    true = _in_range(index, sample, ground_truth(index, sample))
    predicted = _in_range(index, sample, predicted)
    scores = predicted.required_scores
    selected = (scores >= min_score) | (np.arange(len(predicted)) < always)
    predicted, scores = predicted[selected], scores[selected]
    free, correct = np.ones(len(true), bool), np.zeros(len(predicted), bool)
    for i in np.argsort(-scores, kind="stable"):
        distance = np.linalg.norm(true.centers[:, :2] - predicted.centers[i, :2], axis=1)
        distance[~free | (true.labels != predicted.labels[i])] = np.inf
        if len(distance) and distance.min() < MATCHED:
            correct[i], free[distance.argmin()] = True, False
    return Misses(true[~free], true[free], predicted[correct], predicted[~correct])


def _in_range(index: Index, sample: int, boxes: Boxes) -> Boxes:
    distance = np.linalg.norm(boxes.moved(index.lidar_to_ego[sample]).centers[:, :2], axis=1)
    return boxes[distance < RANGES[boxes.labels]]


def by_class(boxes: Boxes) -> dict[str, int]:
    """How many boxes of each class there are, of those that there are."""
    counts = np.bincount(boxes.labels, minlength=len(CLASSES))
    return {name: int(count) for name, count in zip(CLASSES, counts) if count}
