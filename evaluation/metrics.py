"""nuScenes' detection metrics (detection_cvpr_2019) from flat arrays: the devkit's numbers, tens of times as fast.

mAP is the mean over ten classes and four matching distances, the true-positive errors are taken at 2 m, NDS sums both.
Beside the whole stand bands of distance from the ego. Nothing is matched anew for them, so that their borders do no
harm: a match counts in the band of its true box, a prediction without a match in its own. A band's means are over the
classes that have true boxes in it, since no class is looked for at every distance.
"""

from typing import NamedTuple

import numpy as np

from evaluation.flat import NO_ATTRIBUTE, FlatBoxes, ego_distances
from evaluation.matching import match
from models.names import CLASSES

DISTANCES = (0.5, 1.0, 2.0, 4.0)  # m between centres, below which a prediction can match
ERRORS_AT = DISTANCES.index(2.0)
ERRORS = ("ATE", "ASE", "AOE", "AVE", "AAE")
UNDEFINED = {"traffic_cone": ("AOE", "AVE", "AAE"), "barrier": ("AVE", "AAE")}
HALF_TURN = CLASSES.index("barrier")  # looks the same from behind
RECALL = np.linspace(0, 1, 101)
FIRST = 11  # of the recalls that count: those above 0.1
MIN_PRECISION = 0.1
MAP_WEIGHT = 5
BANDS = {"0-20 m": (0.0, 20.0), "20-35 m": (20.0, 35.0), "35-50 m": (35.0, 50.0)}  # name -> from (inclusive), below


class ClassMatches(NamedTuple):
    """One class's predictions from the highest score down, each with what it matched."""

    score: np.ndarray  # (N,)
    hit: np.ndarray  # (distances, N) bool
    place: np.ndarray  # (distances, N) int: the band it counts in, -1 for none
    errors: np.ndarray  # (N, 5) at ERRORS_AT, NaN where not defined or no hit


def evaluate(truth: FlatBoxes, predicted: FlatBoxes, ego: np.ndarray) -> dict:
    """The metrics of counted boxes (`flat.counted`); `ego` (samples, 2): the ego's place in each sample, global.

    A JSON-able dict: `mAP`, `NDS`, `mATE mASE mAOE mAVE mAAE`, and `classes`: name -> `AP`, `AP@0.5 .. AP@4.0`,
    `ATE ASE AOE AVE AAE` (None where undefined for the class) and `ground_truth` (boxes; where 0: AP 0 and errors 1).
    `bands`: name -> the same of the true boxes in it, with means over the classes that have any (None without one).
    """
    place, predicted_place = _bands(truth, ego), _bands(predicted, ego)
    taken = match(truth, predicted, DISTANCES)
    overall: dict[str, dict] = {}
    of_bands: list[dict[str, dict]] = [{} for _ in BANDS]
    for label, name in enumerate(CLASSES):
        matches = _class_matches(truth, predicted, place, predicted_place, taken, label)
        of_class = truth.label == label
        overall[name] = _scores(name, matches, int(of_class.sum()), None)
        for band, classes in enumerate(of_bands):
            classes[name] = _scores(name, matches, int((of_class & (place == band)).sum()), band)
    bands = {
        name: means({c: s for c, s in classes.items() if s["ground_truth"]}) | {"classes": classes}
        for name, classes in zip(BANDS, of_bands)
    }
    return means(overall) | {"classes": overall, "bands": bands}


def means(classes: dict[str, dict]) -> dict[str, float | None]:
    """mAP, NDS and mean errors over classes; None where there is nothing to take a mean of."""
    if not classes:
        return dict.fromkeys(("mAP", "NDS", *(f"m{e}" for e in ERRORS)))
    errors = {e: [c[e] for c in classes.values() if c[e] is not None] for e in ERRORS}
    mean_errors = {f"m{e}": float(np.mean(values)) if values else None for e, values in errors.items()}
    mean_ap = float(np.mean([c["AP"] for c in classes.values()]))
    # An error that no class defines (a band with cones alone) takes no part.
    scores = [max(0.0, 1.0 - error) for error in mean_errors.values() if error is not None]
    nds = (MAP_WEIGHT * mean_ap + sum(scores)) / (MAP_WEIGHT + len(scores))
    return {"mAP": mean_ap, "NDS": float(nds), **mean_errors}


def _class_matches(
    truth: FlatBoxes,
    predicted: FlatBoxes,
    place: np.ndarray,
    predicted_place: np.ndarray,
    taken: np.ndarray,
    label: int,
) -> ClassMatches:
    rows = np.flatnonzero(predicted.label == label)
    rows = rows[np.argsort(predicted.score[rows], kind="stable")[::-1]]  # of equal scores, the later first
    taken = taken[:, rows]
    hit = taken >= 0
    errors = np.full((len(rows), len(ERRORS)), np.nan)
    hits = hit[ERRORS_AT]
    errors[hits] = box_errors(truth[taken[ERRORS_AT, hits]], predicted[rows[hits]])
    places = np.where(hit, np.append(place, -1)[taken], predicted_place[rows])
    return ClassMatches(predicted.score[rows], hit, places, errors)


def box_errors(truth: FlatBoxes, predicted: FlatBoxes) -> np.ndarray:
    """(N, 5): distance (m), 1 - IoU of the sizes, angle (rad), velocity (m/s) and attribute of box n against n.

    NaN where a velocity is unknown or the true box has no attribute.
    """
    smaller, size, other = np.minimum(truth.size, predicted.size).prod(1), truth.size.prod(1), predicted.size.prod(1)
    period = np.where(truth.label == HALF_TURN, np.pi, 2 * np.pi)
    turn = (truth.yaw - predicted.yaw + period / 2) % period - period / 2
    wrong = np.where(truth.attribute == NO_ATTRIBUTE, np.nan, truth.attribute != predicted.attribute)
    return np.column_stack(
        [
            np.linalg.norm(predicted.center[:, :2] - truth.center[:, :2], axis=1),
            1 - smaller / (size + other - smaller),
            np.abs(turn),
            np.linalg.norm(predicted.velocity - truth.velocity, axis=1),
            wrong,
        ]
    )


def _bands(boxes: FlatBoxes, ego: np.ndarray) -> np.ndarray:
    """(N,) each box's number in BANDS, -1 outside all."""
    distance = ego_distances(boxes, ego)
    out = np.full(len(boxes), -1, np.int8)
    for number, (low, high) in enumerate(BANDS.values()):
        out[(distance >= low) & (distance < high)] = number
    return out


def _scores(name: str, matches: ClassMatches, count: int, band: int | None) -> dict:
    """One class's scores where there are `count` boxes to find, in one band or altogether."""
    precisions, errors = {}, {}
    for number, distance in enumerate(DISTANCES):
        rows = slice(None) if band is None else matches.place[number] == band
        hit, score = matches.hit[number, rows], matches.score[rows]
        precisions[f"AP@{distance}"] = average_precision(hit, count)
        if number == ERRORS_AT:
            errors = dict(zip(ERRORS, mean_errors(hit, score, matches.errors[rows], count).tolist()))
    undefined = dict.fromkeys(UNDEFINED.get(name, ()))
    mean = float(np.mean(list(precisions.values())))
    return {"AP": mean, **precisions, **errors, **undefined, "ground_truth": count}


def average_precision(hit: np.ndarray, count: int) -> float:
    """AP of predictions (N,) from the highest score down, `count` boxes to find: the mean over recalls above 0.1."""
    return float(average_of(precision_at(hit, count)))


def average_of(precision: np.ndarray) -> np.ndarray:
    """(...) AP of precision (..., 101) at each of RECALL."""
    return np.maximum(precision[..., FIRST:] - MIN_PRECISION, 0).mean(-1) / (1 - MIN_PRECISION)


def precision_at(hit: np.ndarray, count: int) -> np.ndarray:
    """(101,) precision at each of RECALL, 0 beyond the last that is reached; arguments as of `average_precision`."""
    if count == 0 or not hit.any():
        return np.zeros(len(RECALL))
    hits = np.cumsum(hit)
    return np.interp(RECALL, hits / count, hits / np.arange(1, len(hit) + 1), right=0)


def mean_errors(hit: np.ndarray, score: np.ndarray, errors: np.ndarray, count: int) -> np.ndarray:
    """(E,) means of errors (N, E) over the recalls above 0.1 that are reached; 1 where none is, or none is known.

    At each recall stands the mean over the hits down to the score at that recall.
    """
    out = np.ones(errors.shape[1])
    if count == 0 or not hit.any():
        return out
    confidence = np.interp(RECALL, np.cumsum(hit) / count, score, right=0)
    last = np.flatnonzero(confidence).max(initial=0)  # a score of 0 counts as not reached, as in the devkit
    if last < FIRST:
        return out
    errors, score = errors[hit], score[hit]
    defined = ~np.isnan(errors)
    counts = np.cumsum(defined, 0)
    running = np.nancumsum(errors, 0) / np.maximum(counts, 1)
    for column in np.flatnonzero(defined.any(0)):
        curve = np.interp(confidence[::-1], score[::-1], running[::-1, column])[::-1]
        out[column] = curve[FIRST : last + 1].mean()
    return out
