"""The official matching of predictions to true boxes, for all samples, classes and thresholds by array operations."""

from collections.abc import Sequence

import numpy as np

from evaluation.flat import FlatBoxes
from models.names import CLASSES

PAIRS = 1 << 20  # of a prediction and a true box whose distance is taken at a time: bounds the memory
MARGIN = 1e-6  # m, far above the rounding of a distance


def match(truth: FlatBoxes, predicted: FlatBoxes, thresholds: Sequence[float]) -> np.ndarray:
    """(thresholds, predicted) int: the true box each prediction takes, or -1.

    Within a sample and class, predictions from the highest score down (of equal scores, the later one first) each take
    the nearest true box that is not taken (of equally near ones, the earlier), if it is nearer than the threshold (m,
    in the plane).
    """
    out = np.full((len(thresholds), len(predicted)), -1, np.int32)
    row, target, distance = _near_pairs(truth, predicted, max(thresholds))
    rows, number = np.unique(row, return_inverse=True)
    by_score = np.lexsort((-rows, -predicted.score[rows]))
    place = np.argsort(by_score)[number]  # of each pair's prediction in that order
    order = np.lexsort((target, distance, place))
    place, target, distance = place[order], target[order], distance[order]
    for taken, threshold in zip(out, thresholds):
        near = distance < threshold
        taker, box = _greedy(place[near], target[near], len(truth))
        taken[rows[by_score[taker]]] = box
    return out


def _near_pairs(truth: FlatBoxes, predicted: FlatBoxes, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(prediction, true box, distance) of the pairs of one sample and class that are some `radius` apart or nearer."""
    group, predicted_group = _groups(truth), _groups(predicted)
    by_group = np.argsort(group, kind="stable")
    first = np.searchsorted(group[by_group], predicted_group)
    count = np.searchsorted(group[by_group], predicted_group, side="right") - first
    before = np.cumsum(count)  # pairs up to and with each prediction
    out = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    at = 0
    while at < len(predicted):
        stop = max(at + 1, np.searchsorted(before, before[at] - count[at] + PAIRS, side="right"))
        part = slice(at, stop)
        row = np.repeat(np.arange(at, stop), count[part])
        start = before[part] - count[part] - (before[at] - count[at])  # of each prediction's pairs among these
        target = by_group[np.arange(len(row)) + np.repeat(first[part] - start, count[part])]
        offset = predicted.center[row, :2] - truth.center[target, :2]
        near = (offset**2).sum(1) < (radius + MARGIN) ** 2
        row, target, offset = row[near], target[near], offset[near]
        # By a dot product, as the devkit's norm: another order of rounding would decide some ties otherwise.
        out.append((row, target, np.sqrt(np.matmul(offset[:, None, :], offset[:, :, None])[:, 0, 0])))
        at = stop
    return tuple(np.concatenate(column) for column in zip(*out))


def _groups(boxes: FlatBoxes) -> np.ndarray:
    """(N,) a number for each sample and class."""
    return boxes.sample.astype(np.int64) * len(CLASSES) + boxes.label


def _greedy(place: np.ndarray, target: np.ndarray, targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Who takes what: (predictions, true boxes), from pairs ordered by prediction and then by preference.

    In rounds: a prediction is decided where, of all that are left, it is the first that could take its favourite. That
    is what one after the other decides too, since no earlier one can take that box, and no later one took a better.
    """
    takers, boxes = [place[:0]], [target[:0]]
    earliest = np.empty(targets, np.int64)  # who could take a box first, of those that are left
    done = np.zeros(targets, bool)
    while len(place):
        earliest[target] = place[-1]
        np.minimum.at(earliest, target, place)
        favourite = np.concatenate([[True], place[1:] != place[:-1]])
        decided = favourite & (earliest[target] == place)
        takers.append(place[decided])
        boxes.append(target[decided])
        done[target[decided]] = True
        free = ~done[target] & ~decided[favourite][np.cumsum(favourite) - 1]
        place, target = place[free], target[free]
    return np.concatenate(takers), np.concatenate(boxes)
