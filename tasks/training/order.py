"""Which samples a step takes and what is random in it, from the seed and the step's number alone.

Nothing has to be stored to go on after an interruption, and batches may be prepared ahead of time in any order.
"""

import numpy as np

ORDER, AUGMENTATION = 0, 1  # streams of random numbers that share a seed without sharing numbers


def batch_at(step: int, samples: np.ndarray, batch_size: int, seed: int) -> np.ndarray:
    """The samples (batch_size,) of a step: every sample once an epoch, in an order of that epoch's own.

    A batch may reach into the next epoch, so that all have the same size, whatever the number of samples.
    """
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = places // len(samples)
    orders = {e: np.random.default_rng([seed, ORDER, e]).permutation(len(samples)) for e in np.unique(epochs)}
    return np.array([samples[orders[e][place % len(samples)]] for e, place in zip(epochs, places)])


def generator_at(step: int, seed: int) -> np.random.Generator:
    """The random numbers of a step's augmentation."""
    return np.random.default_rng([seed, AUGMENTATION, step])
