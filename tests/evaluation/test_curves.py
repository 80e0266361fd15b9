"""What stands behind the scores, against loops over all pairs."""

import numpy as np
import pytest

from evaluation import metrics
from evaluation.curves import Matched, best_threshold, calibration, confusion, precision_recall
from evaluation.flat import FlatBoxes
from evaluation.matching import match
from evaluation.metrics import DISTANCES, ERRORS_AT
from models.names import CLASSES


def boxes(random, count, scores=True):
    return FlatBoxes(
        sample=random.integers(0, 3, count),
        label=random.integers(0, 4, count).astype(np.int8),
        center=np.column_stack([random.uniform(-8, 8, (count, 2)), np.zeros(count)]),
        size=np.ones((count, 3)),
        yaw=np.zeros(count),
        velocity=np.zeros((count, 2)),
        attribute=np.zeros(count, np.int8),
        score=random.random(count) if scores else np.ones(count),
    )


@pytest.fixture(params=range(4))
def of(request):
    random = np.random.default_rng(request.param)
    truth, predicted = boxes(random, 60, scores=False), boxes(random, 150)
    return Matched(truth, predicted, match(truth, predicted, DISTANCES))


def test_precision_has_the_ap_of_the_metrics(of):
    scores = metrics.evaluate(of.truth, of.predicted, np.zeros((3, 2)))["classes"]
    curves = precision_recall(of)
    assert list(curves) == [name for name, s in scores.items() if s["ground_truth"]]
    for name, precision in curves.items():
        ap = [np.maximum(p[metrics.FIRST :] - 0.1, 0).mean() / 0.9 for p in precision]
        assert ap == pytest.approx([scores[name][f"AP@{d}"] for d in DISTANCES])


def test_the_threshold_has_the_best_f1_of_all(of):
    def f1(score):
        kept = of.predicted.score >= score
        return 2 * (of.taken[ERRORS_AT, kept] >= 0).sum() / (kept.sum() + len(of.truth))

    best = best_threshold(of)
    assert best.f1 == pytest.approx(max(map(f1, of.predicted.score)))
    assert f1(best.score) == pytest.approx(best.f1)


def test_confusion_is_that_of_a_loop(of):
    expected, free = np.zeros((11, 11), int), set(range(len(of.truth)))
    for p in np.argsort(-of.predicted.score, kind="stable"):
        if of.predicted.score[p] < 0.4:
            continue
        distance = np.linalg.norm(of.truth.center - of.predicted.center[p], axis=1)
        near = [t for t in free if of.truth.sample[t] == of.predicted.sample[p] and distance[t] < 2]
        taken = min(near, key=lambda t: distance[t], default=None)
        free -= {taken}
        expected[10 if taken is None else of.truth.label[taken], of.predicted.label[p]] += 1
    for t in free:
        expected[of.truth.label[t], 10] += 1
    found = confusion(of, 0.4)
    assert found.shape == (len(CLASSES) + 1,) * 2
    np.testing.assert_array_equal(found, expected)


def test_calibration_counts_every_box_once(of):
    bins = calibration(of, 5)
    assert sum(b.boxes for b in bins) == len(of.predicted)
    first = of.predicted.score < 0.2
    assert bins[0] == (of.predicted.score[first].mean(), (of.taken[ERRORS_AT, first] >= 0).mean(), first.sum())


def test_nothing_predicted_or_nothing_right():
    random = np.random.default_rng(0)
    truth, none = boxes(random, 5), boxes(random, 0)
    of = Matched(truth, none, match(truth, none, DISTANCES))
    assert best_threshold(of) == (1.0, 0.0)
    assert calibration(of) == []
    assert confusion(of, 0.0)[:, 10].sum() == 5
    assert all((precision == 0).all() for precision in precision_recall(of).values())
