"""Which frames a sample has, against a walk through its scene."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.finetune.frames import frames_of


@given(scenes=st.lists(st.integers(1, 4), min_size=1, max_size=4), count=st.integers(1, 4))
def test_a_frame_that_is_not_there_is_the_sample_itself(scenes, count):
    of_scene = np.repeat(np.arange(len(scenes)), scenes)
    first = np.r_[True, of_scene[1:] != of_scene[:-1]]
    index = SimpleNamespace(previous=np.where(first, -1, np.arange(len(of_scene)) - 1))
    for sample in range(len(of_scene)):
        earlier = [sample - back for back in range(count)]
        expected = [s if s >= 0 and of_scene[s] == of_scene[sample] else sample for s in earlier]
        assert frames_of(index, sample, count) == expected
