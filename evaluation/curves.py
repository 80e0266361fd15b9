"""What lies behind a detector's scores: precision over recall, confused classes, and what a box's score is worth.

All from a results file and the index, by the matching that `metrics` scores with.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from evaluation.flat import FlatBoxes, counted
from evaluation.ground_truth import ego, flat_truth, racks
from evaluation.matching import match
from evaluation.metrics import DISTANCES, ERRORS_AT, precision_at
from evaluation.results import Results
from models.names import CLASSES
from storage.index import Index


@dataclass(frozen=True)
class Matched:
    """The counted boxes of some samples, true and predicted, and who took which."""

    truth: FlatBoxes
    predicted: FlatBoxes
    taken: np.ndarray  # (distances, predicted) int: the true box that a prediction takes, or -1

    @property
    def right(self) -> np.ndarray:
        """(predicted,) bool: takes a true box of its class, where errors are measured (2 m)."""
        return self.taken[ERRORS_AT] >= 0


def matched(index: Index, results: Results) -> Matched:
    """Match a results file with the index. Raises KeyError where it has a sample that the index does not have."""
    samples = np.array([index.sample_of[token] for token in results.tokens], np.int64)
    predicted = replace(results.boxes, sample=samples[results.boxes.sample])
    predicted = predicted[counted(predicted, ego(index), racks(index, samples.tolist()))]
    truth = flat_truth(index, samples.tolist())
    return Matched(truth, predicted, match(truth, predicted, DISTANCES))


def precision_recall(of: Matched) -> dict[str, np.ndarray]:
    """Class -> (distances, 101) precision at `metrics.RECALL`, of the classes that have boxes to find."""
    out = {}
    for label, name in enumerate(CLASSES):
        if count := int((of.truth.label == label).sum()):
            rows = np.flatnonzero(of.predicted.label == label)
            rows = rows[np.argsort(of.predicted.score[rows], kind="stable")[::-1]]  # of equal scores, the later first
            out[name] = np.stack([precision_at(taken[rows] >= 0, count) for taken in of.taken])
    return out


class Threshold(NamedTuple):
    score: float
    f1: float


def best_threshold(of: Matched) -> Threshold:
    """The score from which on all boxes together have the best F1 at 2 m; (1, 0) where no box is right."""
    order = np.argsort(-of.predicted.score, kind="stable")
    hits, score = np.cumsum(of.right[order]), of.predicted.score[order]
    if not len(hits) or hits[-1] == 0:
        return Threshold(1.0, 0.0)
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + len(of.truth))
    best = int(f1.argmax())
    return Threshold(float(score[best]), float(f1[best]))


def confusion(of: Matched, least_score: float) -> np.ndarray:
    """(11, 11) counts: a true box's class, or nothing there, by the class of the box that takes it, or none.

    Boxes that score `least_score` take true boxes of any class within 2 m, the best first. The last row are boxes that
    take none, the last column true boxes that none takes.
    """
    predicted = of.predicted[of.predicted.score >= least_score]

    def of_one_class(boxes: FlatBoxes) -> FlatBoxes:
        return replace(boxes, label=np.zeros_like(boxes.label))

    (taken,) = match(of_one_class(of.truth), of_one_class(predicted), DISTANCES[ERRORS_AT : ERRORS_AT + 1])
    out, none, hit = np.zeros((len(CLASSES) + 1,) * 2, np.int64), len(CLASSES), taken >= 0
    np.add.at(out, (of.truth.label[taken[hit]], predicted.label[hit]), 1)
    np.add.at(out, (none, predicted.label[~hit]), 1)
    missed = np.setdiff1d(np.arange(len(of.truth)), taken[hit])
    np.add.at(out, (of.truth.label[missed], none), 1)
    return out


class Bin(NamedTuple):
    """Predicted boxes of about one score."""

    score: float  # mean
    right: float  # share that is right at 2 m
    boxes: int


def calibration(of: Matched, bins: int = 10) -> list[Bin]:
    """Bins of equal width from score 0 to 1 that hold any box: a calibrated score is the share that is right."""
    place = np.minimum((of.predicted.score * bins).astype(int), bins - 1)
    out = []
    for number in np.unique(place).tolist():
        rows = place == number
        out.append(Bin(float(of.predicted.score[rows].mean()), float(of.right[rows].mean()), int(rows.sum())))
    return out
