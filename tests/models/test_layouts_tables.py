"""Position tables at other sizes, against the slow way of the original."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RectBivariateSpline

from models.layouts.tables import (
    geometric_offsets,
    grid_to_tokens,
    resize_bias_table,
    resize_position_embedding,
    tokens_to_grid,
)


def resized_slowly(table: torch.Tensor, side: int) -> torch.Tensor:
    """Head by head: find the ratio by halving, lay the old offsets out, put a bicubic spline through them."""
    old = round(len(table) ** 0.5)
    low, high = 1.0, 100.0
    while high - low > 1e-12:
        ratio = (low + high) / 2
        low, high = (low, ratio) if sum(ratio**k for k in range(old // 2)) > side // 2 else (ratio, high)
    offsets, reached = [], 0.0
    for k in range(old // 2):
        reached += ratio**k
        offsets.append(reached)
    grid = [-o for o in reversed(offsets)] + [0.0, *offsets]
    wanted = [float(offset) for offset in range(-(side // 2), side // 2 + 1)]
    heads = []
    for head in table.T:
        spline = RectBivariateSpline(grid, grid, head.view(old, old).double().numpy(), s=0)
        heads.append(torch.tensor([[spline(row, column)[0, 0] for column in wanted] for row in wanted]).flatten())
    return torch.stack(heads, 1)


@pytest.mark.parametrize(("old", "side"), [(13, 15), (7, 15), (7, 31), (5, 7)])
def test_a_larger_window_is_as_interpolated_slowly(old, side):
    table = torch.randn(old**2, 2, generator=torch.Generator().manual_seed(old), dtype=torch.float64)
    torch.testing.assert_close(resize_bias_table(table, side), resized_slowly(table, side), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("old", "side", "ratio"), [(27, 31, 1.02349), (13, 15, 1.06140)])
def test_the_ratios_of_geomim_from_mixmae(old, side, ratio):
    steps = np.diff(geometric_offsets(old // 2, side // 2))
    np.testing.assert_allclose(steps[old // 2 + 1 :] / steps[old // 2 : -1], ratio, atol=5e-6)


sides = st.integers(1, 12).map(lambda window: 2 * window - 1)


@given(sides, sides, st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_any_window_to_any_other(old, side, heads):
    table = torch.randn(old**2, heads)
    resized = resize_bias_table(table, side)
    assert resized.shape == (side**2, heads)
    assert resized.dtype == table.dtype
    torch.testing.assert_close(resized[side**2 // 2], table[old**2 // 2])  # a token's bias to itself
    torch.testing.assert_close(resize_bias_table(torch.ones(old**2, 1), side), torch.ones(side**2, 1))
    flipped = resize_bias_table(table.flip(0), side)
    torch.testing.assert_close(flipped.flip(0), resized, atol=1e-5, rtol=1e-5)  # both axes, both directions alike
    if side <= old:
        corner = old // 2 - side // 2
        rows = table.view(old, old, heads)[corner : corner + side, corner : corner + side]
        assert torch.equal(resized.view(side, side, heads), rows)
    else:
        assert torch.allclose(resized[0], table[0], atol=1e-5)  # the farthest offsets stay the farthest
        assert torch.allclose(resized[-1], table[-1], atol=1e-5)


def test_the_same_size_is_the_same_tensor():
    table, embedding = torch.randn(49, 2), torch.randn(1, 3, 5, 5)
    assert resize_bias_table(table, 7) is table
    assert resize_position_embedding(embedding, 5) is embedding


def test_position_embeddings_are_resized_as_the_network_resizes_them():
    embedding = torch.randn(1, 3, 5, 5)
    wanted = torch.nn.functional.interpolate(embedding, (8, 8), mode="bicubic", align_corners=False)
    assert torch.equal(resize_position_embedding(embedding, 8), wanted)


def test_tokens_stand_row_by_row():
    tokens = torch.arange(18.0).view(1, 9, 2)
    grid = tokens_to_grid(tokens)
    assert grid[0, 1, 2, 0] == tokens[0, 6, 1]
    assert torch.equal(grid_to_tokens(grid), tokens)
    for other in (grid, torch.zeros(1, 8, 2), torch.empty(0)):
        assert tokens_to_grid(other) is other
