import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from models.lidar import sparse_conv
from models.lidar.segment import segment_sum
from models.lidar.sparse_conv import Sites, SparseConv3d, SparseTensor, SubmanifoldConv3d

SHAPE = (9, 7, 6)


def random_tensor(density: float, channels: int, seed: int, batch: int = 2, shape=SHAPE) -> SparseTensor:
    """Sites at random, borders included, in double precision and given in no order."""
    generator = torch.Generator().manual_seed(seed)
    coords = torch.nonzero(torch.rand(batch, *shape, generator=generator) < density)
    coords = coords[torch.randperm(len(coords), generator=generator)]
    sites, order = Sites.sorted(coords, shape, batch)
    features = torch.randn(len(coords), channels, generator=generator, dtype=torch.float64)
    return SparseTensor(features[order].requires_grad_(), sites)


def dense_weight(conv: torch.nn.Module) -> torch.Tensor:
    return conv.weight.permute(4, 3, 0, 1, 2)


def check_against(dense: torch.Tensor, active: torch.Tensor, got: SparseTensor, conv, x: SparseTensor):
    """Values, active sites and both gradients against the masked dense convolution."""
    b, i, j, k = active.unbind(1)
    assert torch.equal(got.sites.coords, active)
    wanted = dense[b, :, i, j, k]
    torch.testing.assert_close(got.features, wanted, atol=1e-10, rtol=1e-10)
    grad = torch.randn_like(wanted)
    ours = torch.autograd.grad(got.features, (x.features, conv.weight), grad, retain_graph=True)
    theirs = torch.autograd.grad(wanted, (x.features, conv.weight), grad)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([0.02, 0.3, 1.0]), st.integers(0, 10_000), st.sampled_from([50, 400, 32_768]))
def test_submanifold_equals_masked_dense(density, seed, chunk):
    x = random_tensor(density, 3, seed)
    conv = SubmanifoldConv3d(3, 4).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_conv, "PAIRS_PER_CHUNK", chunk)
        got = conv(x)
        dense = F.conv3d(x.dense(), dense_weight(conv), padding=1)
        check_against(dense, x.sites.coords, got, conv, x)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
        ((3, 3, 3), (2, 2, 2), (1, 1, 0)),
        ((1, 1, 3), (1, 1, 2), (0, 0, 0)),
        ((2, 3, 1), (1, 3, 2), (0, 2, 0)),
    ],
)
@pytest.mark.parametrize("density", [0.02, 0.4, 1.0])
def test_strided_equals_dense(kernel, stride, padding, density):
    x = random_tensor(density, 3, seed=1)
    conv = SparseConv3d(3, 4, kernel, stride, padding).double()
    got = conv(x)
    dense = F.conv3d(x.dense(), dense_weight(conv), stride=stride, padding=padding)
    occupied = torch.zeros(2, 1, *SHAPE, dtype=torch.float64)
    b, i, j, k = x.sites.coords.unbind(1)
    occupied[b, 0, i, j, k] = 1
    reached = F.conv3d(occupied, torch.ones(1, 1, *kernel, dtype=torch.float64), stride=stride, padding=padding)
    check_against(dense, torch.nonzero(reached[:, 0] > 0.5), got, conv, x)
    assert got.sites.shape == dense.shape[2:]


def test_gradients_numerically():
    x = random_tensor(0.05, 2, seed=3, batch=1, shape=(4, 4, 4))
    conv = SubmanifoldConv3d(2, 2).double()
    weight = conv.weight.detach().clone().requires_grad_()

    def run(features, weight):
        return sparse_conv._Convolve.apply(features, weight.flatten(0, 2), x.sites.submanifold3)

    assert torch.autograd.gradcheck(run, (x.features, weight))


def test_no_site_at_all():
    sites = Sites(torch.zeros(0, 4, dtype=torch.long), SHAPE, 1)
    x = SparseTensor(torch.zeros(0, 3, requires_grad=True), sites)
    y = SparseConv3d(3, 4, (3, 3, 3), (2, 2, 2), (1, 1, 1))(SubmanifoldConv3d(3, 3)(x))
    assert y.features.shape == (0, 4)
    assert y.dense().shape == (1, 4, 5, 4, 3)
    assert y.dense().abs().sum() == 0
    y.features.sum().backward()


def test_same_bits_every_time():
    x = random_tensor(0.3, 16, seed=5, shape=(16, 16, 16))
    conv = SubmanifoldConv3d(16, 16).double()
    first, second = (torch.autograd.grad(conv(x).features.square().sum(), conv.weight)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_rules_are_built_once():
    sites = random_tensor(0.3, 1, seed=6).sites
    assert sites.submanifold3 is sites.submanifold3
    assert sites.strided((3, 3, 3), (2, 2, 2), (1, 1, 1)) is sites.strided((3, 3, 3), (2, 2, 2), (1, 1, 1))


def test_segment_sum_with_empty_segments():
    rows = torch.arange(8.0).reshape(4, 2)
    got = segment_sum(rows, torch.tensor([3, 0, 0]), torch.tensor([0, 0, 1, 3]))
    assert got.tolist() == [[0, 0], [6, 7], [0, 2], [0, 0]]
    assert (
        segment_sum(rows, torch.zeros(0, dtype=torch.long), torch.zeros(3, dtype=torch.long)).tolist() == [[0, 0]] * 3
    )
