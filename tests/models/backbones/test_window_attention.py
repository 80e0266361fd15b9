import pytest
import torch

from models.backbones.window_attention import (
    Cliques,
    WindowAttention,
    from_windows,
    relative_position_index,
    to_windows,
)


@pytest.mark.parametrize("size", [(8, 12), (5, 7), (3, 4)])
@pytest.mark.parametrize("visible", [True, False])
@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("by_clique", [True, False])
def test_attention_is_the_slow_one(size, visible, grouped, by_clique):
    """Against one token at a time: softmax over the tokens of its window (and group), zeros where padding is seen."""
    attention, x, groups = small_attention(size, visible, grouped)
    expected = torch.zeros_like(x)
    for m in range(2):
        for i in range(size[0]):
            for j in range(size[1]):
                expected[m, i, j] = slow_token(attention, x[m], None if groups is None else groups[m], i, j)
    made = attention(x, attention.windows(x, groups, by_clique))
    torch.testing.assert_close(made, expected)
    inputs = (x, *attention.parameters())
    weight = torch.randn_like(x)
    grads, expected_grads = (torch.autograd.grad((out * weight).sum(), inputs) for out in (made, expected))
    torch.testing.assert_close(grads, expected_grads)


@pytest.mark.parametrize("by_clique", [True, False])
def test_shared_groups_are_each_images(by_clique):
    attention, x, groups = small_attention((8, 12), True, True)
    shared, own = groups[:1], groups[:1].expand(2, -1, -1)
    torch.testing.assert_close(*(attention(x, attention.windows(x, g, by_clique)) for g in (shared, own)))


def test_half_precision_keeps_the_softmax_whole():
    attention, x, groups = small_attention((8, 12), True, True)
    attention, x = attention.float(), x.float()
    windows = attention.windows(x, groups)
    with torch.autocast("cpu", torch.bfloat16):
        made = attention(x, windows)
    torch.testing.assert_close(made.float(), attention(x, windows), atol=2e-2, rtol=0)
    made.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in attention.parameters())


def small_attention(size, visible, grouped):
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, 4, padding_visible=visible).double()
    torch.nn.init.normal_(attention.relative_position_bias_table)
    x = torch.randn(2, *size, 8, dtype=torch.float64, requires_grad=True)
    return attention, x, torch.randint(-1, 2, (2, *size)) if grouped else None


def slow_token(attention, x, groups, i, j):
    window, heads = attention.window, attention.num_heads
    top, left = i // window * window, j // window * window
    q = attention.qkv(x[i, j])[:8].view(heads, -1) * (8 // heads) ** -0.5
    scores, values = [], []
    for a in range(top, top + window):
        for b in range(left, left + window):
            padding = a >= x.shape[0] or b >= x.shape[1]
            if padding and (groups is not None or not attention.padding_visible):
                continue
            if groups is not None and groups[a, b] != groups[i, j]:
                continue
            token = torch.zeros(8, dtype=x.dtype) if padding else x[a, b]
            _, k, v = attention.qkv(token).view(3, heads, -1)
            row = (i - a + window - 1) * (2 * window - 1) + (j - b + window - 1)
            scores.append((q * k).sum(-1) + attention.relative_position_bias_table[row])
            values.append(v)
    weights = torch.stack(scores).softmax(0)  # (tokens, heads)
    return attention.proj((weights.unsqueeze(-1) * torch.stack(values)).sum(0).flatten())


def test_a_clique_is_a_group_in_a_window():
    groups = torch.tensor([[[0, 1, 0], [1, 1, 0]]])
    cliques = Cliques.of(groups, (2, 2))
    assert cliques.order.tolist() == [0, 1, 3, 4, 2, 5]
    assert cliques.positions.tolist() == [0, 1, 2, 3, 0, 2]
    assert cliques.sizes == [1, 3, 2]
    assert cliques.order[cliques.inverse].tolist() == list(range(6))


def test_relative_positions_of_a_cut_window():
    whole = relative_position_index(4, 4, 4).view(4, 4, 4, 4)
    assert torch.equal(relative_position_index(2, 3, 4).view(2, 3, 2, 3), whole[:2, :3, :2, :3])


def test_windows_round_trip():
    x = torch.randn(2, 8, 12, 3)
    windows = to_windows(x, 4, 6)
    assert torch.equal(windows[1, 3].view(4, 6, 3), x[1, 4:, 6:])
    assert torch.equal(from_windows(windows, 4, 6, 8, 12), x)
