import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.segmentation import SegmentationScore
from models.names import BEV_LAYERS

RANGE, CELL = 40.0, 8.0


def by_counting(samples, layer, threshold, ring=(0, 1e9)):
    both = either = 0
    for probabilities, masks in samples:
        for j in range(10):
            for i in range(10):
                x, y = -RANGE + (i + 0.5) * CELL, -RANGE + (j + 0.5) * CELL
                if ring[0] <= (x * x + y * y) ** 0.5 < ring[1]:
                    said = probabilities[layer, j, i] >= threshold
                    both += said and masks[layer, j, i]
                    either += said or masks[layer, j, i]
    return both / either if either else None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_scores_are_counts(seed, share):
    rng = np.random.default_rng(seed)
    samples = [(rng.random((2, 10, 10)), rng.random((2, 10, 10)) < share) for _ in range(2)]
    score = SegmentationScore(RANGE, CELL)
    for sample in samples:
        score.add(*sample)
    made = score.result()
    thresholds = (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
    for layer, name in enumerate(BEV_LAYERS):
        found = made["layers"][name]
        values = [by_counting(samples, layer, t) for t in thresholds]
        assert found["IoU"] == pytest.approx(values[3])
        assert found["IoU@max"] == pytest.approx(max(values))
        assert values[thresholds.index(found["threshold"])] == max(values)
        assert found["IoU 0-20 m"] == pytest.approx(by_counting(samples, layer, 0.5, (0, 20)))
        assert found["IoU beyond 35 m"] == pytest.approx(by_counting(samples, layer, 0.5, (35, 1e9)))
    assert made["mIoU"] == pytest.approx(np.mean([made["layers"][n]["IoU"] for n in BEV_LAYERS]))


def test_nothing_there_and_nothing_said_has_no_score():
    score = SegmentationScore(RANGE, CELL)
    masks = np.zeros((2, 10, 10), bool)
    masks[0, 3] = True
    score.add(masks.astype(float), masks)
    made = score.result()
    assert made["layers"]["drivable_area"]["IoU"] == made["mIoU"] == 1.0
    assert made["layers"]["vehicle"]["IoU"] is None
