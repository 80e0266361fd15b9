"""Which training samples count as labelled where labels are scarce.

Whole scenes, since that is how labels are bought: a tenth of every scene's samples would show nearly every object of
the dataset. Neither the seed nor the arm has a say, so that all runs of a fraction learn from the same labels and their
spread is that of training alone; a smaller fraction's scenes are among a larger one's.
"""

import math

import numpy as np

from storage.index import Index


def labelled(index: Index, fraction: float) -> np.ndarray:
    """Rows of the index, ascending: the samples of `fraction` of the train split's scenes, at least one of them."""
    samples = index.samples("train")
    scenes = np.unique(index.scene[samples])
    kept = math.ceil(fraction * len(scenes) - 1e-9)  # 0.07 * 100 is 7.000000000000001
    return samples[np.isin(index.scene[samples], np.random.default_rng(0).permutation(scenes)[:kept])]
