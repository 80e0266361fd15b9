"""Class-balanced grouping and sampling (CBGS, Zhu et al. 2019): scenes with rare classes come more often.

The resampling of mmdet3d's CBGSDataset, which nuScenes detectors and GeoMIM's pretraining train on: 28,130 key frames
become 123,580. Labels decide how often a sample comes, and nothing else.
"""

import numpy as np

from common.errors import UserError
from storage.index import Index, has_points
from training.order import RESAMPLING, generator_at


def class_balanced(index: Index, samples: np.ndarray, seed: int) -> np.ndarray:
    """`samples` (n,) drawn anew, to be gone through once an epoch; the same list for the same seed.

    D counts every pair of a class and a sample with a valid box of it: one of the detection classes with at least one
    LiDAR or radar point, where those were counted (nuScenes' `valid_flag`). Each class then draws, with replacement, an
    equal share of D from the samples that have it. Upstream shares D among all ten classes and divides by zero where a
    dataset lacks one; here the classes that are there share it. Raises UserError where there is no valid box at all.
    """
    drawn_from = [samples[has] for has in holders(index)[:, samples] if has.any()]
    if not drawn_from:
        raise UserError(
            'sampling is "cbgs", but no training sample has a box of the detection classes with LiDAR or radar points: '
            'set it to "uniform"'
        )
    size = sum(map(len, drawn_from)) // len(drawn_from)
    generator = generator_at(0, seed, RESAMPLING)
    return np.concatenate([generator.choice(rows, size) for rows in drawn_from])


def holders(index: Index) -> np.ndarray:
    """(classes, S) bool: which samples have a valid box of which class."""
    labels = index.box_label
    valid = (labels >= 0) & (has_points(index.box_lidar_points, 1) | (index.box_radar_points > 0))
    sample = np.repeat(np.arange(len(index.box_offsets) - 1), np.diff(index.box_offsets))
    found = np.zeros((len(index.classes), len(index.box_offsets) - 1), bool)
    found[labels[valid], sample[valid]] = True
    return found
