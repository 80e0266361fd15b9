"""Which samples pretraining learns from, and which it is measured on."""

import numpy as np

from storage.index import Index

DEPTH_RANGES = ((0, 15), (15, 30), (30, 45), (45, 60))  # m, by which errors of depth are told
DEPTH_SAMPLES = 64  # at most, of train: what is answered of a depth without images
PICTURED = 2  # held-out samples in a picture


def split_samples(index: Index, most: int) -> tuple[np.ndarray, np.ndarray]:
    """(to train on, to hold out): the train split and at most `most` samples spread over val.

    Without a val split the last tenth of train is held out; of a single sample, that sample.
    """
    train, val = index.samples("train"), index.samples("val")
    if len(val) == 0:
        cut = max(1, len(train) - max(1, len(train) // 10))
        train, val = train[:cut], train[cut:] if len(train) > 1 else train
    return train, spread(val, most)


def spread(samples: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the samples, evenly spaced, the first and the last among them."""
    return samples[np.unique(np.linspace(0, len(samples) - 1, min(most, len(samples))).astype(int))]


def far_apart(samples: np.ndarray) -> np.ndarray:
    """The samples in an order in which neighbours are half the list apart, so rarely of one scene."""
    half = len(samples) // 2
    return np.concatenate([np.stack([samples[:half], samples[half : 2 * half]], 1).ravel(), samples[2 * half :]])
