"""The linear probe's parts against slow and obvious references; the whole of it is in test_held_out.py."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.boxes import Boxes
from tasks.pretrain.probe import (
    average_precision,
    balanced_rows,
    best_threshold,
    fit_logistic,
    occupied_cells,
    overlap,
)

LOW, CELL, SHAPE = (-6.0, -9.0), 0.75, (16, 24)


def some_boxes(generator: np.random.Generator, count: int) -> Boxes:
    return Boxes(
        centers=generator.uniform(-12, 12, (count, 3)),
        sizes=generator.uniform(0.1, 8, (count, 3)),
        yaws=generator.uniform(-4, 4, count),
        velocities=np.zeros((count, 2)),
        labels=np.zeros(count, np.int64),
    )


def occupied_cells_reference(boxes: Boxes) -> np.ndarray:
    occupied = np.zeros(SHAPE, bool)
    for n, (x, y, z) in enumerate(boxes.centers):
        for i in range(SHAPE[0]):
            for j in range(SHAPE[1]):
                left, bottom = LOW[0] + i * CELL, LOW[1] + j * CELL
                centre = np.array([[left + CELL / 2, bottom + CELL / 2, z]])
                occupied[i, j] |= bool(boxes[[n]].contains(centre)[0, 0])
                occupied[i, j] |= left <= x < left + CELL and bottom <= y < bottom + CELL
    return occupied


@given(st.integers(0, 2**32), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_cells_in_boxes(seed, count):
    boxes = some_boxes(np.random.default_rng(seed), count)
    assert np.array_equal(occupied_cells(boxes, LOW, CELL, SHAPE), occupied_cells_reference(boxes))


def test_a_box_smaller_than_a_cell_has_its_cell():
    boxes = Boxes(np.array([[0.1, 0.1, 0.0]]), np.full((1, 3), 0.01), np.zeros(1), np.zeros((1, 2)), np.zeros(1, int))
    assert np.argwhere(occupied_cells(boxes, LOW, CELL, SHAPE)).tolist() == [[8, 12]]


def at_or_above(scores: list[int], labels: list[bool], threshold: int) -> tuple[int, int]:
    """(true, all) among the scores from `threshold` on."""
    chosen = [label for score, label in zip(scores, labels) if score >= threshold]
    return sum(chosen), len(chosen)


RANKED = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30).filter(
    lambda rows: any(label for _, label in rows)
)


@given(RANKED)
def test_average_precision(rows):
    scores, labels = zip(*rows)
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        hits, count = at_or_above(scores, labels, threshold)
        recall = hits / sum(labels)
        area += (recall - recall_before) * hits / count
        recall_before = recall
    got = average_precision(torch.tensor(scores).float(), torch.tensor(labels))
    assert got == pytest.approx(area)


@given(RANKED)
def test_the_best_threshold_has_the_best_overlap(rows):
    scores, labels = zip(*rows)
    best = max(
        hits / (sum(labels) + count - hits) for hits, count in (at_or_above(scores, labels, t) for t in set(scores))
    )
    s, t = torch.tensor(scores).float(), torch.tensor(labels)
    assert overlap(s >= best_threshold(s, t, torch.ones(len(s))), t) == pytest.approx(best)


def test_a_weight_counts_as_so_many_rows():
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.rand(40, generator=generator), torch.rand(40, generator=generator) < 0.3
    weights = torch.where(labels, 1, torch.randint(1, 5, (40,), generator=generator))
    repeated = [values.repeat_interleave(weights) for values in (scores, labels)]
    assert best_threshold(scores, labels, weights) == best_threshold(*repeated, torch.ones(len(repeated[0])))


@given(st.integers(0, 2**32), st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_drawn_rows_stand_for_all(seed, share):
    random = np.random.default_rng(seed)
    occupied = torch.from_numpy(random.random(400) < share)
    rows, weights = balanced_rows(occupied, random)
    assert len(rows.unique()) == len(rows)
    assert set(occupied.nonzero()[:, 0].tolist()) <= set(rows.tolist())
    assert float(weights[occupied[rows]].sum()) == occupied.sum()
    assert float(weights[~occupied[rows]].sum()) == pytest.approx(float((~occupied).sum()), rel=1e-5)


def test_logistic_regression_is_at_its_optimum():
    """Against plain gradient descent on the same objective, run until it stands still."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.2]) + 3
    labels = x @ torch.tensor([1.0, 0.3, 2.0], dtype=torch.float64) + torch.randn(300, generator=generator) * 2 > 11
    weights = torch.rand(300, generator=generator) + 0.5
    probe = fit_logistic(x, labels, weights)
    z = (x - x.mean(0)) / x.std(0)
    w = weights.double()
    w = torch.where(labels, w / w[labels].sum(), w / w[~labels].sum()) / 2
    weight, bias = torch.zeros(3, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for _ in range(2000):
        residual = w * ((z @ weight + bias).sigmoid() - labels.double())
        weight = weight - (z.T @ residual + 2e-4 * weight)
        bias = bias - residual.sum()
    torch.testing.assert_close(probe.weight, weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(probe(x), z @ weight + bias, rtol=1e-3, atol=2e-3)


def test_a_channel_that_gives_it_away_is_found():
    generator = torch.Generator().manual_seed(1)
    labels = torch.rand(2000, generator=generator) < 0.05
    features = torch.randn(2000, 8, generator=generator, dtype=torch.float64)
    features[:, 7] = 0  # a dead channel
    assert average_precision(fit_logistic(features, labels, torch.ones(2000))(features), labels) < 0.2
    features[:, 3] += 8 * labels
    assert average_precision(fit_logistic(features, labels, torch.ones(2000))(features), labels) > 0.95
