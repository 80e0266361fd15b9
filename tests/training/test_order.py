"""The order of samples against one written down epoch by epoch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from training import order
from training.order import AUGMENTATION, MASKS, ORDER, generator_at, positions_at, sample_at, share


def batch_at(step, samples, batch_size, seed):
    return np.array([sample_at(position, samples, seed) for position in positions_at(step, batch_size)])


def order_by_epochs(samples, epochs, seed) -> list[int]:
    """Every position of so many epochs."""
    shuffled = (np.random.default_rng([seed, ORDER, e]).permutation(len(samples)) for e in range(epochs))
    return [int(samples[place]) for order in shuffled for place in order]


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 30), batch_size=st.integers(1, 9), seed=st.integers(0, 3))
def test_a_step_takes_the_next_positions_of_shuffled_epochs(count, batch_size, seed):
    samples = np.arange(100, 100 + count)
    wanted = order_by_epochs(samples, 3, seed)
    for epoch in range(3):
        assert sorted(wanted[epoch * count : (epoch + 1) * count]) == samples.tolist()
    for step in range(3 * count // batch_size):
        positions = positions_at(step, batch_size)
        chosen = [sample_at(position, samples, seed) for position in positions]
        assert chosen == wanted[step * batch_size : (step + 1) * batch_size]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_shares_of_shares_are_the_step_in_order(step, each, ranks, micro_batches):
    whole = positions_at(step, each * ranks * micro_batches)
    by_rank = [share(share(whole, r, ranks), m, micro_batches) for r in range(ranks) for m in range(micro_batches)]
    by_micro_batch = [
        share(share(whole, m, micro_batches), r, ranks) for m in range(micro_batches) for r in range(ranks)
    ]
    for shares in (by_rank, by_micro_batch):
        assert [len(part) for part in shares] == [each] * (ranks * micro_batches)
        assert [position for part in shares for position in part] == [*whole]


def test_unequal_shares():
    with pytest.raises(ValueError, match="7 samples do not divide into 2 equal parts"):
        share(range(7), 0, 2)


def test_seeds_epochs_positions_and_streams_differ():
    samples = np.arange(50)
    assert (batch_at(0, samples, 50, 0) != batch_at(1, samples, 50, 0)).any()
    assert (batch_at(0, samples, 50, 0) != batch_at(0, samples, 50, 1)).any()
    drawn = {generator_at(*of).random() for of in ((3, 0), (4, 0), (3, 1), (3, 0, MASKS))}
    assert len(drawn) == 4
    assert generator_at(3, 0).random() == generator_at(3, 0, AUGMENTATION).random()


def test_ranks_and_seeds_draw_apart(monkeypatch):
    """Neither rank of any seed draws as another rank of another seed does."""
    seeds = set()
    for rank in range(8):
        monkeypatch.setattr(order, "rank", lambda rank=rank: rank)
        seeds |= {order.seed_of_rank(seed) for seed in range(8)}
    assert len(seeds | set(range(16))) == 8 * 8 + 16


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.sets(st.integers(0, 29), max_size=10), st.randoms())
def test_others_take_the_places_of_samples_that_are_left_out(count, skip, random):
    tokens = np.array([f"token{s}" for s in range(30)], object)
    samples = np.array([random.randrange(30) for _ in range(count)])
    skipped = [f"token{s}" for s in skip]
    if set(samples) <= skip:
        with pytest.raises(UserError, match="no sample is left"):
            order.leaving_out(samples, tokens, skipped)
        return
    expected = []
    for place in range(count):
        while samples[place] in skip:
            place = (place + 1) % count
        expected.append(samples[place])
    assert order.leaving_out(samples, tokens, skipped).tolist() == expected
