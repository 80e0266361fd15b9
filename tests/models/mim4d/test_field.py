import pytest
import torch

from models.mim4d.field import ColourTrunk, Field, SdfTrunk


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_the_distances_derivatives_are_those_of_autograd(blocks):
    torch.manual_seed(0)
    trunk = SdfTrunk(6, 8, 1 + 4, blocks).double()
    points, features = (torch.randn(5, 7, size, dtype=torch.float64, requires_grad=True) for size in (3, 6))
    found = trunk.differentiated(points, features)
    assert found.sdf.shape == (5, 7)
    assert found.geometry.shape == (5, 7, 4)
    torch.testing.assert_close(trunk(points, features), found.sdf)
    wanted = torch.autograd.grad(found.sdf.sum(), (points, features), create_graph=True)
    torch.testing.assert_close((found.by_point, found.by_features), wanted)

    # And so are their own.
    leaves = [points, features, *trunk.parameters()]
    ours, theirs = (
        torch.autograd.grad(sum(d.pow(3).sum() for d in derivatives), leaves, retain_graph=True, materialize_grads=True)
        for derivatives in ((found.by_point, found.by_features), wanted)
    )
    torch.testing.assert_close(ours, theirs)


def test_colours_are_between_nothing_and_all():
    colours = ColourTrunk(9, 8, 3, 2)(100 * torch.randn(50, 3), 100 * torch.randn(50, 9))
    assert colours.shape == (50, 3)
    assert 0 <= colours.min() <= colours.max() <= 1


def test_opacity():
    field = Field(4, 8, 4, 1, 1)
    assert field.sharpness().item() == pytest.approx(20.0855, rel=1e-5)
    field.deviation.data.fill_(0.7)
    towards = torch.tensor([0.0, 0, -1]).expand(4, 3)
    # Outside, at the surface, inside; and at the surface from within.
    gradients = torch.tensor([[0.0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, -1]])
    sdf, lengths = torch.tensor([0.1, 0.0, -0.1, 0.0]), torch.full((4,), 0.02)
    alphas = field.alphas(sdf, gradients, towards, lengths, 1.0)
    assert alphas[0] < 1e-4
    assert alphas[1] > 0.99
    assert alphas[2] > 0.99
    assert alphas[3] < 1e-4
    # While it is annealed, a surface that faces away counts less than one that is seen flatly, and both a little.
    assert field.alphas(sdf, gradients * 0.5, towards, lengths, 0.4)[1] > 0.9
    annealed = field.alphas(sdf, gradients * 0, towards, lengths, 0.4)[1]
    assert annealed > field.alphas(sdf, gradients * 0, towards, lengths, 1.0)[1]
