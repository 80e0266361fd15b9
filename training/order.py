"""Which samples a step takes and what is random in them, from the seed, the epoch and the position alone.

Training walks through positions 0, 1, 2, ... without end: a step takes the next `batch_size` of them, a micro-batch
a share of the step's, a rank a share of each micro-batch. Whatever is random about a sample follows from its position,
so that the same samples come with the same augmentation on any number of ranks and micro-batches, and nothing has to be
stored to go on after an interruption. Batches may be made ahead of time, in any order.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from common.errors import UserError
from training.ranks import rank, rank_count

# Streams of random numbers that share a seed without sharing numbers.
ORDER, AUGMENTATION, MASKS, RESAMPLING, RANKS = range(5)


def positions_at(step: int, batch_size: int) -> range:
    """The positions of a step (the first is 0), over all ranks and micro-batches."""
    return range(step * batch_size, (step + 1) * batch_size)


def share(positions: range, part: int, parts: int) -> range:
    """The part number `part` of `parts` equal ones, in order: a micro-batch's of a step, a rank's of a micro-batch.

    Equal, because the mean of the parts' mean losses must be the mean over all. ValueError where they cannot be.
    """
    size, rest = divmod(len(positions), parts)
    if rest:
        raise ValueError(f"{len(positions)} samples do not divide into {parts} equal parts")
    return positions[part * size : (part + 1) * size]


def parts_at(step: int, batch_size: int, accumulate: int) -> list[range]:
    """This rank's share of each of `accumulate` micro-batches of a step.

    Shares of micro-batches, not micro-batches of a share: so a micro-batch, which is what batch norm sees, holds the
    same samples on any number of ranks.
    """
    positions = positions_at(step, batch_size)
    return [share(share(positions, part, accumulate), rank(), rank_count()) for part in range(accumulate)]


def sample_at(position: int, samples: np.ndarray, seed: int) -> int:
    """The sample at a position: every entry of `samples` once an epoch, in an order of that epoch's own.

    A step may reach into the next epoch, so that all have the same size, whatever the number of samples.
    """
    epoch, place = divmod(position, len(samples))
    return int(samples[_order(seed, epoch, len(samples))[place]])


def generator_at(position: int, seed: int, stream: int = AUGMENTATION) -> np.random.Generator:
    """The random numbers of what stands at a position; or of a step, where all its samples share them."""
    return np.random.default_rng([seed, stream, position])


def seed_of_rank(seed: int) -> int:
    """For torch's generator on this rank, from which drop path draws: another one for every seed and rank.

    (seed + rank would make rank 1 of an experiment's first seed draw as rank 0 of its second.)
    """
    return int(generator_at(rank(), seed, RANKS).integers(2**62))


def leaving_out(samples: np.ndarray, index_tokens: np.ndarray, skip: Sequence[str]) -> np.ndarray:
    """`samples`, rows of an index with these tokens, with the next ones in the places of those that are in `skip`.

    What stands elsewhere, and what is random about it, stays as it was. Raises UserError where there is no such
    sample, or no other.
    """
    if unknown := sorted(set(skip) - set(index_tokens)):
        raise UserError(f"skip_samples: the index has no sample {unknown[0]}; name tokens of its samples")
    kept = np.flatnonzero(~np.isin(index_tokens[samples], skip))
    if len(kept) == 0:
        raise UserError("skip_samples: no sample is left to train on; name fewer")
    return samples[kept[np.searchsorted(kept, np.arange(len(samples))) % len(kept)]]


@lru_cache(4)  # a loader looks ahead, at most into the next epoch
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, ORDER, epoch]).permutation(count)
