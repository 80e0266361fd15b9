import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batches.occupancy import Occupancy
from evaluation.occupancy import OccupancyScore
from models.names import OCCUPANCY_CLASSES


def by_counting(samples) -> tuple[list[float], float]:
    """IoU of each class, NaN where it never occurs, and the mean over the 17 semantic ones: voxel by voxel."""
    each = []
    for c in range(18):
        both = either = 0
        for predicted, truth in samples:
            for said, true, seen in zip(predicted.ravel(), truth.labels.ravel(), truth.seen.ravel()):
                if seen:
                    both += said == c and true == c
                    either += said == c or true == c
        each.append(both / either if either else math.nan)
    known = [value for value in each[:17] if not math.isnan(value)]
    return each, sum(known) / len(known) if known else math.nan


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 18), st.floats(0, 1))
def test_scores_are_counts(seed, classes, visible):
    rng = np.random.default_rng(seed)
    few = rng.choice(18, classes, replace=False)
    score, samples = OccupancyScore(), []
    for _ in range(2):
        predicted, labels = (rng.choice(few, (4, 3, 2)).astype(np.uint8) for _ in range(2))
        samples.append((predicted, Occupancy(labels, rng.random((4, 3, 2)) < visible)))
        score.add(predicted, *samples[-1][1])
    made, (each, mean) = score.result(), by_counting(samples)
    assert made["samples"] == 2
    for name, value in zip(OCCUPANCY_CLASSES, each):
        found = made["classes"][name]["IoU"]
        assert (found is None and math.isnan(value)) or found == pytest.approx(value, abs=1e-12)
    assert (made["mIoU"] is None and math.isnan(mean)) or made["mIoU"] == pytest.approx(mean, abs=1e-12)
    seen = np.concatenate([t.seen.ravel() for _, t in samples])
    said, true = (np.concatenate([a.ravel() for a in arrays])[seen] != 17 for arrays in (
        [p for p, _ in samples], [t.labels for _, t in samples]
    ))  # fmt: skip
    if (said | true).any():
        assert made["IoU"] == pytest.approx((said & true).sum() / (said | true).sum())


def test_truth_scores_one():
    labels = np.arange(24).reshape(4, 3, 2).astype(np.uint8) % 18
    score = OccupancyScore()
    score.add(labels, labels, np.ones(labels.shape, bool))
    assert score.result()["mIoU"] == score.result()["IoU"] == 1.0
