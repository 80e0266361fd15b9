from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from batches.labels import labelled


def index(scenes: int, each: int = 3):
    """Scenes of `each` samples; every fifth is val."""
    scene = np.repeat(np.arange(scenes), each)
    return SimpleNamespace(scene=scene, samples=lambda split: np.flatnonzero((scene % 5 == 4) == (split == "val")))


@given(st.integers(1, 60), st.floats(1e-3, 1), st.floats(1e-3, 1))
def test_whole_scenes_of_train_and_the_fewer_among_the_more(scenes, one, other):
    few, many = (labelled(index(scenes), fraction) for fraction in sorted((one, other)))
    train = index(scenes).samples("train")
    assert set(few) <= set(many) <= set(train)
    assert len(few) % 3 == 0
    assert len(np.unique(index(scenes).scene[few])) * 3 == len(few) > 0
    assert (np.diff(few) > 0).all()
    assert np.array_equal(labelled(index(scenes), 1.0), train)


def test_the_share_is_rounded_up_to_whole_scenes():
    counts = [len(labelled(index(125), fraction)) // 3 for fraction in (0.07, 0.1, 0.101, 0.5)]
    assert counts == [7, 10, 11, 50]


def test_without_training_samples_there_are_none():
    assert len(labelled(index(0), 0.5)) == 0
