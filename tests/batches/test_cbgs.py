"""Class-balanced resampling against a loop over samples and boxes."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batches.cbgs import class_balanced, holders
from common.errors import UserError
from models.names import CLASSES


def some_index(seed: int, samples: int, boxes: int) -> SimpleNamespace:
    """Boxes of a few classes and of none, half of them without points of one sensor or both."""
    random = np.random.default_rng(seed)
    labels = random.choice([-1, 0, 1, 4, 9], boxes).astype(np.int8)
    return SimpleNamespace(
        classes=CLASSES,
        box_offsets=np.concatenate([[0], np.sort(random.integers(0, boxes + 1, samples - 1)), [boxes]]),
        box_label=labels,
        box_lidar_points=random.integers(0, 2, boxes),
        box_radar_points=random.integers(0, 2, boxes),
    )


def classes_of(index, sample: int) -> set[int]:
    found = set()
    for box in range(index.box_offsets[sample], index.box_offsets[sample + 1]):
        seen = index.box_lidar_points[box] > 0 or index.box_radar_points[box] > 0
        if index.box_label[box] >= 0 and seen:
            found.add(int(index.box_label[box]))
    return found


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(1, 30), boxes=st.integers(0, 80))
def test_each_class_draws_an_equal_share(seed, samples, boxes):
    index = some_index(seed, samples, boxes)
    found = holders(index)
    assert [set(np.flatnonzero(of)) for of in found.T] == [classes_of(index, s) for s in range(samples)]

    chosen = np.arange(0, samples, 2)
    pairs = [(label, s) for label in range(len(CLASSES)) for s in chosen.tolist() if label in classes_of(index, s)]
    if not pairs:
        with pytest.raises(UserError, match="no training sample has a box"):
            class_balanced(index, chosen, seed)
        return
    present = sorted({label for label, _ in pairs})
    size = len(pairs) // len(present)
    drawn = class_balanced(index, chosen, seed).tolist()
    assert len(drawn) == size * len(present)
    for place, label in enumerate(present):
        assert set(drawn[place * size : (place + 1) * size]) <= {s for of, s in pairs if of == label}
    assert drawn == class_balanced(index, chosen, seed).tolist()


def test_rare_classes_come_up():
    """A class in one scene of fifty, as large in the drawn list as one that is everywhere."""
    index = SimpleNamespace(
        classes=CLASSES,
        box_offsets=np.concatenate([[0], np.arange(2, 52), [51]]),  # two boxes in the first sample, then one in each
        box_label=np.array([3] + [0] * 50, np.int8),
        box_lidar_points=np.ones(51, int),
        box_radar_points=np.zeros(51, int),
    )
    drawn = class_balanced(index, np.arange(50), 0)
    assert len(drawn) == 50  # 51 pairs of class and sample, shared by two classes
    assert 25 <= (drawn == 0).sum() <= 30
    assert (drawn != class_balanced(index, np.arange(50), 1)).any()
