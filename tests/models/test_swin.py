import pytest
import torch

from models.swin import Swin, WindowAttention, from_windows, relative_position_index, to_windows, upsample_groups


def tiny_swin(**kwargs):
    torch.manual_seed(0)
    return Swin(8, (1, 1, 2, 1), (1, 2, 2, 4), (8, 4, 4, 4), pretrain_grid=7, **kwargs).eval()


def test_shapes_of_sizes_that_do_not_divide():
    maps = tiny_swin()(torch.randn(2, 3, 70, 98))
    assert [tuple(m.shape) for m in maps] == [(2, 8, 18, 25), (2, 16, 9, 13), (2, 32, 5, 7), (2, 64, 3, 4)]


@pytest.mark.parametrize("shared", [True, False])
def test_groups_do_not_see_each_other(shared):
    """Changing every pixel of group 1 changes nothing in group 0, in any stage's map."""
    swin = tiny_swin()
    generator = torch.Generator().manual_seed(1)
    groups = torch.randint(0, 2, (1 if shared else 2, 2, 3), generator=generator)
    images = torch.randn(2, 3, 64, 96, generator=generator)
    pixels = upsample_groups(groups, 64, 96).unsqueeze(1)
    other = torch.where(pixels == 0, images, torch.randn(images.shape, generator=generator))
    with torch.no_grad():
        for first, second in zip(swin(images, groups), swin(other, groups)):
            shown = (upsample_groups(groups, *first.shape[-2:]) == 0).unsqueeze(1).expand_as(first)
            torch.testing.assert_close(first[shown], second[shown], atol=1e-6, rtol=0)
            assert not torch.allclose(first[~shown], second[~shown])


@pytest.mark.parametrize("size", [(8, 12), (5, 7), (3, 4)])
@pytest.mark.parametrize("visible", [True, False])
@pytest.mark.parametrize("grouped", [True, False])
def test_window_attention_is_the_slow_one(size, visible, grouped):
    """Against one token at a time: softmax over the tokens of its window (and group), zeros where padding is seen."""
    torch.manual_seed(0)
    height, width = size
    attention = WindowAttention(8, 2, 4, padding_visible=visible).double()
    torch.nn.init.normal_(attention.relative_position_bias_table)
    x = torch.randn(2, height, width, 8, dtype=torch.float64)
    groups = torch.randint(-1, 2, (2, height, width)) if grouped else None
    expected = torch.zeros_like(x)
    for m in range(2):
        for i in range(height):
            for j in range(width):
                expected[m, i, j] = slow_token(attention, x[m], None if groups is None else groups[m], i, j)
    torch.testing.assert_close(attention(x, groups), expected)


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


def test_relative_positions_of_a_cut_window():
    whole = relative_position_index(4, 4, 4).view(4, 4, 4, 4)
    assert torch.equal(relative_position_index(2, 3, 4).view(2, 3, 2, 3), whole[:2, :3, :2, :3])


def test_windows_round_trip():
    x = torch.randn(2, 8, 12, 3)
    windows = to_windows(x, 4, 6)
    assert torch.equal(windows[1, 3].view(4, 6, 3), x[1, 4:, 6:])
    assert torch.equal(from_windows(windows, 4, 6, 8, 12), x)


def test_drop_path_drops_whole_images_in_training_only():
    swin = tiny_swin(drop_path=0.9)
    image = torch.randn(1, 3, 32, 32).expand(16, 3, 32, 32)
    torch.testing.assert_close(*swin(image)[3][:2])
    swin.train()
    different = (swin(image)[2] - swin(image)[2][:1]).abs().flatten(1).amax(1) > 1e-3
    assert different.any()
