"""What stands behind a detector's scores: precision over recall, confusion of classes, what its scores are worth."""

from dataclasses import dataclass

import numpy as np

from evaluation.curves import Matched, best_threshold, calibration, confusion, matched, precision_recall
from evaluation.metrics import RECALL, average_of
from evaluation.results import read_results
from evaluation.submission import RESULTS
from gallery.report.curves import Curve
from gallery.report.run import Arm, Run
from gallery.report.svg import Chart
from models.names import CLASSES

AGREES = 0.002  # of AP: where boxes at a class's range to the last bit count here and not there
EVERY = 2  # of the 101 recalls that are drawn


@dataclass(frozen=True)
class Confusion:
    rows: list[tuple[str, list[tuple[int, float]], int]]  # true class, (count, share of the row) by column, all
    columns: list[str]
    score: float  # of a box, at least
    f1: float


@dataclass(frozen=True)
class Detections:
    """Of the detector that the run is about; the curves with the baseline's over them."""

    arms: tuple[str, ...]
    precision: list[Curve]
    confusion: Confusion | None  # None where no box is right
    calibration: Curve
    ap: dict[str, float]  # as the curves have it, class by class


def detections(run: Run) -> Detections | None:
    """None where no boxes are predicted, or there is nothing to compare them with."""
    curves: dict[str, dict[str, np.ndarray]] = {}
    first, confused, calibrated = None, None, None
    for arm in run.arms:
        with run.notes.unless(f"the precision-recall curves of {arm.name}"):
            file = run.checked(f"evaluate{arm.suffix}", RESULTS)
            if file is None or run.index is None or arm.metrics is None or "bands" not in arm.metrics:
                continue
            of = matched(run.index, read_results(file))
            curves[arm.name] = precision_recall(of)
            if first is None:
                first, confused, calibrated = arm, _confusion(of), _calibration(calibration(of))
            del of  # hundreds of megabytes of a large split, and the next arm's come
    if first is None or calibrated is None:
        return None
    ap = {name: float(average_of(precision).mean()) for name, precision in curves[first.name].items()}
    if off := [name for name, value in ap.items() if abs(value - _official(first)[name]["AP"]) > AGREES]:
        run.notes.add(f"The precision-recall curves of {', '.join(off)} do not have the AP that metrics.json has")
    return Detections(tuple(curves), [_precision(name, first, curves) for name in ap], confused, calibrated, ap)


def _official(arm: Arm) -> dict[str, dict]:
    assert arm.metrics is not None
    return arm.metrics["classes"]


def _precision(name: str, arm: Arm, curves: dict[str, dict[str, np.ndarray]]) -> Curve:
    """The mean over the four distances of every arm, and faint each distance of the first."""
    ap = {other: average_of(of[name]).mean() for other, of in curves.items() if name in of}
    said = ", ".join(f"{other} AP {value:.4f}" for other, value in ap.items())
    chart = Chart((0, 1), (0, 1), (236, 160), ("recall", "precision"), title=f"Precision over recall, {name}: {said}")
    recall = RECALL[::EVERY]
    for precision in curves[arm.name][name]:
        chart.line(recall, precision[::EVERY], "s0 faint")
    for place, of in reversed([*enumerate(curves.values())]):
        if name in of:
            chart.line(recall, of[name].mean(0)[::EVERY], f"s{place}")
    chart.words(1, 0.9, f"AP {_official(arm)[name]['AP']:.4f}", "value end")
    return Curve(name, f"{_official(arm)[name]['ground_truth']:,} boxes", chart.svg())


def _confusion(of: Matched) -> Confusion | None:
    """Above the score of the best F1; without the classes that are neither there nor predicted."""
    score, f1 = best_threshold(of)
    if not f1:
        return None
    table = confusion(of, score)
    used = [i for i in range(len(CLASSES)) if table[i].any() or table[:, i].any()]
    names, none = [CLASSES[i] for i in used], len(CLASSES)
    rows = []
    for name, i in [*zip(names, used), ("nothing there", none)]:
        counts = table[i, [*used, none]]
        total = int(counts.sum())
        rows.append((name, [(int(n), float(n) / total if total else 0.0) for n in counts], total))
    return Confusion(rows, [*names, "missed"], score, f1)


def _calibration(bins: list) -> Curve:
    told = "; ".join(f"score {b.score:.2f}: {b.right:.0%} right of {b.boxes:,}" for b in bins)
    title = f"Share of boxes that are right, by their score: {told}"
    chart = Chart((0, 1), (0, 1), (300, 220), ("score of a box", "share that is right at 2 m"), title=title)
    chart.line((0, 1), (0, 1), "s1")
    chart.line([b.score for b in bins], [b.right for b in bins], "s0")
    largest = max((b.boxes for b in bins), default=1)
    for b in bins:
        chart.dots([b.score], [b.right], "s0", 2 + 5 * (b.boxes / largest) ** 0.5)
    return Curve("score calibration", "above the dashed line a box is better than its score, below worse", chart.svg())
