import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from models.masking import HIDDEN, draw_halves, halves


@given(st.integers(1, 9), st.integers(1, 9), st.integers(50, 99), st.integers(0, 1000))
@example(4, 5, 90, 0)  # 20 * (1 - 0.9) is 1.9999999999999996
def test_each_reconstruction_sees_its_share(height, width, percent, seed):
    groups = draw_halves(4, (height, width), torch.Generator().manual_seed(seed), percent / 100, shared=False)
    visible = height * width * (100 - percent) // 100
    assert groups.shape == (4, height, width)
    for shown in (0, 1):
        assert ((groups == shown).sum((1, 2)) == visible).all()
    assert ((groups == HIDDEN).sum((1, 2)) == height * width - 2 * visible).all()


def test_a_permutation_is_cut_in_two():
    assert halves(torch.tensor([[3, 0, 4, 1, 2]]), (1, 5)).tolist() == [[[0, 1, HIDDEN, 0, 1]]]


def test_draws_follow_the_generator():
    first, again, other = (draw_halves(1, (4, 11), torch.Generator().manual_seed(s)) for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (1, 4, 11)


def test_overlapping_halves_are_refused():
    with pytest.raises(ValueError, match=r"mask ratio is 0\.4"):
        draw_halves(1, (4, 4), torch.Generator(), 0.4)
