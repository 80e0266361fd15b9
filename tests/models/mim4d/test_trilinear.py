import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

import mim4d_render_reference as slow
from models.mim4d.trilinear import Corners, Table, products, trilinear, weighted


def a_volume(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_places(volume: Tensor, count: int, seed: int = 0) -> Tensor:
    """Inside and up to two voxels outside."""
    sizes = torch.tensor(volume.shape[:1:-1])
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(volume), count, 3, generator=generator, dtype=torch.float64) * (sizes + 3) - 2


SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3), *[st.integers(1, 5)] * 3)


@given(SIZES, st.integers(0, 20), st.integers(0, 99))
def test_against_corner_by_corner(shape, count, seed):
    volume = a_volume(shape, seed)
    places = some_places(volume, count, seed)
    wanted = torch.stack([slow.trilinear(v, p) for v, p in zip(volume, places)])
    torch.testing.assert_close(trilinear(volume, places), wanted)


@given(SIZES, st.integers(0, 99))
def test_against_grid_sample(shape, seed):
    """Whose places, with align_corners=False, are of [-1, 1] across the volume's outer sides."""
    volume = a_volume(shape, seed)
    places = some_places(volume, 15, seed)
    grid = (2 * places + 1) / torch.tensor(volume.shape[:1:-1]) - 1
    wanted = F.grid_sample(volume, grid[:, None, None], padding_mode="zeros", align_corners=False)
    torch.testing.assert_close(trilinear(volume, places), wanted[:, :, 0, 0].transpose(1, 2))


def test_derivatives_of_two_orders():
    volume = a_volume((2, 2, 2, 3, 4)).requires_grad_()
    places = some_places(volume, 6, 1).requires_grad_()
    assert gradcheck(trilinear, (volume, places))
    assert gradgradcheck(trilinear, (volume, places))


def test_derivatives_of_the_third_order():
    volume = a_volume((1, 2, 2, 3, 4)).requires_grad_()
    places = some_places(volume, 4, 1).requires_grad_()

    def slope(volume: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        value = trilinear(volume, places).square().sum()
        return torch.autograd.grad(value, (volume, places), create_graph=True)

    assert gradgradcheck(slope, (volume, places))


def test_derivatives_against_the_plain_gather():
    volume = a_volume((1, 3, 3, 4, 5)).requires_grad_()
    places = some_places(volume, 200).requires_grad_()
    weight = torch.randn(200, 3, dtype=torch.float64)
    found = []
    for sample in (lambda: trilinear(volume, places)[0], lambda: slow.trilinear(volume[0], places[0])):
        first = torch.autograd.grad((sample() * weight).sum(), (volume, places), create_graph=True)
        second = torch.autograd.grad(first[1].square().sum() + first[0].square().sum(), (volume, places))
        found.append((*first, *second))
    for ours, wanted in zip(*found):
        torch.testing.assert_close(ours, wanted)


def test_products_and_slopes_make_the_derivative_by_the_place():
    volume = a_volume((2, 3, 3, 4, 5))
    places = some_places(volume, 50).requires_grad_()
    vectors = torch.randn(100, 3, dtype=torch.float64)
    table = Table.of(volume)
    corners = Corners.of(places, table)
    (wanted,) = torch.autograd.grad((weighted(corners, table) * vectors).sum(), places)
    got = (products(vectors, corners, table)[..., None] * corners.slopes()).sum(1)
    torch.testing.assert_close(got.view_as(wanted), wanted)


def test_corners_made_without_gradients_have_them_all_the_same():
    volume = a_volume((1, 2, 2, 3, 4)).requires_grad_()
    places = some_places(volume, 30)
    with torch.no_grad():
        unsorted = Corners.of(places, Table.of(volume))
    assert unsorted.order is None
    gradients = []
    for corners in (unsorted, Corners.of(places, Table.of(volume))):
        (gradient,) = torch.autograd.grad(weighted(corners, Table.of(volume)).square().sum(), volume)
        gradients.append(gradient)
    assert torch.equal(*gradients)


def test_far_outside_is_nothing():
    volume = a_volume((1, 2, 3, 3, 3)).float().requires_grad_()
    places = torch.tensor([[[1e9, 0, 0], [-1e30, 1, 1], [1, 1, 4], [-1, 1, 1], [3, 1, 1]]]).requires_grad_()
    out = trilinear(volume, places)
    assert not out.any()
    by_volume, by_places = torch.autograd.grad(out.sum(), (volume, places))
    assert not by_volume.any()
    assert by_places.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 3), (2, 4, 3), (4, 3)])
def test_places_of_another_shape(shape):
    with pytest.raises(ValueError, match="places has the shape"):
        trilinear(torch.zeros(1, 2, 2, 2, 2), torch.zeros(shape))
