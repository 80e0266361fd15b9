import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.lidar import sparse_conv
from models.lidar.encoder import EncoderSpec, SparseEncoder
from models.lidar.segment import segment_sum
from models.lidar.sparse_conv import Sites, SparseConv3d, SparseTensor, SubmanifoldConv3d
from models.norm import Norm

SHAPE = (9, 7, 6)
PUBLISHED = [((3, 3, 3), (2, 2, 2), (1, 1, 1)), ((3, 3, 3), (2, 2, 2), (1, 1, 0)), ((1, 1, 3), (1, 1, 2), (0, 0, 0))]
axis = st.integers(1, 3)
triple = st.tuples(axis, axis, axis)


def tensor_at(coords: torch.Tensor, channels: int, seed: int, batch: int, shape=SHAPE) -> SparseTensor:
    """Random features in double precision at coordinates given in any order."""
    generator = torch.Generator().manual_seed(seed)
    sites, order = Sites.sorted(coords, shape, batch)
    features = torch.randn(len(coords), channels, generator=generator, dtype=torch.float64)
    return SparseTensor(features[order].requires_grad_(), sites)


def random_tensor(density: float, channels: int, seed: int, batch: int = 2, shape=SHAPE) -> SparseTensor:
    """Sites at random, borders included, given in no order."""
    generator = torch.Generator().manual_seed(seed)
    coords = torch.nonzero(torch.rand(batch, *shape, generator=generator) < density)
    return tensor_at(coords[torch.randperm(len(coords), generator=generator)], channels, seed, batch, shape)


def check(conv: torch.nn.Module, x: SparseTensor) -> SparseTensor:
    """Values, active sites and both gradients against the dense convolution, masked."""
    got = conv(x)
    submanifold = isinstance(conv, SubmanifoldConv3d)
    stride, padding = (1, 1) if submanifold else (conv.stride, conv.padding)
    slow = torch.zeros(x.sites.batch_size, *x.sites.shape, x.features.shape[1], dtype=torch.float64)
    slow = slow.index_put(x.sites.coords.unbind(1), x.features).permute(0, 4, 1, 2, 3)
    assert torch.equal(x.dense(), slow)
    dense = F.conv3d(slow, conv.weight.permute(4, 3, 0, 1, 2), stride=stride, padding=padding)
    assert got.sites.shape == dense.shape[2:]
    if submanifold:
        active = x.sites.coords
    else:
        occupied = torch.zeros_like(slow[:, :1]).detach()
        b, i, j, k = x.sites.coords.unbind(1)
        occupied[b, 0, i, j, k] = 1
        ones = torch.ones(1, 1, *conv.kernel, dtype=torch.float64)
        active = torch.nonzero(F.conv3d(occupied, ones, stride=stride, padding=padding)[:, 0] > 0.5)
    assert torch.equal(got.sites.coords, active)
    b, i, j, k = active.unbind(1)
    wanted = dense[b, :, i, j, k]
    torch.testing.assert_close(got.features, wanted, atol=1e-10, rtol=1e-10)
    grad = torch.randn_like(wanted)
    ours = torch.autograd.grad(got.features, (x.features, conv.weight), grad, retain_graph=True)
    theirs = torch.autograd.grad(wanted, (x.features, conv.weight), grad)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)
    return got


@settings(max_examples=15, deadline=None)
@given(triple, st.integers(1, 2), st.sampled_from([0.0, 0.02, 0.3, 1.0]), st.integers(0, 999), st.sampled_from([1, 37]))
@example((9, 7, 6), 2, 0.3, 0, 4096)
def test_submanifold_equals_masked_dense(shape, batch, density, seed, chunk):
    shape = tuple(2 * s for s in shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sparse_conv.SITES_PER_CHUNK, "cpu", chunk)
        check(SubmanifoldConv3d(3, 4).double(), random_tensor(density, 3, seed, batch, shape))


@settings(max_examples=25, deadline=None)
@given(triple, triple, triple, st.sampled_from([0.0, 0.02, 0.4, 1.0]), st.integers(0, 999), st.sampled_from([1, 37]))
@example((2, 3, 1), (1, 3, 2), (1, 3, 1), 0.4, 1, 4096)
def test_strided_equals_dense(kernel, stride, padding, density, seed, chunk):
    padding = tuple(min(p, k) - 1 for p, k in zip(padding, kernel))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sparse_conv.SITES_PER_CHUNK, "cpu", chunk)
        check(SparseConv3d(3, 4, kernel, stride, padding).double(), random_tensor(density, 3, seed))


@pytest.mark.parametrize("geometry", PUBLISHED)
def test_published_strides(geometry):
    check(SparseConv3d(3, 4, *geometry).double(), random_tensor(0.2, 3, seed=1))


@pytest.mark.parametrize("corner", list(itertools.product((0, 1), repeat=3)))
def test_one_voxel_in_a_corner(corner):
    """Its neighbours across the border wrap round to nothing, in the same sample or the next."""
    coords = torch.tensor([[b, *(c * (s - 1) for c, s in zip(corner, SHAPE))] for b in (1, 0)])
    x = tensor_at(coords, 3, 0, 2)
    for conv in (SubmanifoldConv3d(3, 4), *(SparseConv3d(3, 4, *geometry) for geometry in PUBLISHED)):
        check(conv.double(), x)


def test_opposite_borders_are_no_neighbours():
    """One full layer at each end of every axis: whoever forgets the border meets the other end."""
    index = torch.cartesian_prod(torch.arange(2), *(torch.arange(s) for s in SHAPE))
    ends = ((index[:, 1:] == 0) | (index[:, 1:] == torch.tensor(SHAPE) - 1)).any(1)
    check(SubmanifoldConv3d(2, 2).double(), tensor_at(index[ends], 2, 0, 2))


def test_gradients_numerically():
    x = random_tensor(0.05, 2, seed=3, batch=1, shape=(4, 4, 4))
    book = x.sites.submanifold3
    weight = SubmanifoldConv3d(2, 2).double().weight
    assert torch.autograd.gradcheck(lambda f, w: sparse_conv.convolve(f, w, book), (x.features, weight))
    conv = SparseConv3d(2, 2, *PUBLISHED[0]).double()
    _, book = x.sites.strided(*PUBLISHED[0])
    assert torch.autograd.gradcheck(lambda f, w: sparse_conv.convolve(f, w, book), (x.features, conv.weight))


def test_no_site_at_all():
    sites = Sites(torch.zeros(0, 4, dtype=torch.long), SHAPE, 1)
    x = SparseTensor(torch.zeros(0, 3, requires_grad=True), sites)
    y = SparseConv3d(3, 4, (3, 3, 3), (2, 2, 2), (1, 1, 1))(SubmanifoldConv3d(3, 3)(x))
    assert y.features.shape == (0, 4)
    assert y.dense().shape == (1, 4, 5, 4, 3)
    assert y.dense().abs().sum() == 0
    y.features.sum().backward()


def test_a_kernel_too_large_says_so():
    with pytest.raises(ValueError, match=r"\(3, 3, 3\) does not fit into \(2, 4, 4\)"):
        SparseConv3d(1, 1, (3, 3, 3), (2, 2, 2), (0, 0, 0))(random_tensor(0.5, 1, 0, shape=(2, 4, 4)))


def test_same_bits_every_time():
    x = random_tensor(0.3, 16, seed=5, shape=(16, 16, 16))
    conv = SubmanifoldConv3d(16, 16).double()

    def run() -> tuple[torch.Tensor, ...]:
        out = conv(SparseTensor(x.features, Sites(x.sites.coords, x.sites.shape, 2))).features
        return out, *torch.autograd.grad(out.square().sum(), (x.features, conv.weight))

    assert all(torch.equal(a, b) for a, b in zip(run(), run()))


def test_rules_are_built_once():
    sites = random_tensor(0.3, 1, seed=6).sites
    assert sites.submanifold3 is sites.submanifold3
    assert sites.strided((3, 3, 3), (2, 2, 2), (1, 1, 1)) is sites.strided((3, 3, 3), (2, 2, 2), (1, 1, 1))


def half_precision(x: SparseTensor, conv: torch.nn.Module, autocast: bool) -> tuple[torch.Tensor, ...]:
    """The result in bfloat16 and both gradients, by autocast or because the features are so."""
    features = x.features.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = conv(SparseTensor(features if autocast else features.bfloat16(), x.sites)).features
    assert out.dtype == torch.bfloat16
    return out.float(), *torch.autograd.grad(out.float().square().sum(), (features, conv.weight))


@pytest.mark.parametrize("conv", [SubmanifoldConv3d(16, 24), SparseConv3d(16, 24, *PUBLISHED[0])])
def test_bfloat16(conv):
    x = random_tensor(0.4, 16, seed=7)
    features = x.features.detach().float().requires_grad_()
    exact = conv(SparseTensor(features, x.sites)).features
    exact = (exact, *torch.autograd.grad(exact.square().sum(), (features, conv.weight)))
    cast = half_precision(x, conv, autocast=True)
    for a, b in zip(exact, cast):
        assert b.dtype == torch.float32
        assert (a - b).norm() < 2**-7 * a.norm()  # bfloat16 keeps 8 bits
    assert all(torch.equal(a, b) for a, b in zip(cast, half_precision(x, conv, autocast=False)))


@pytest.fixture
def encoder() -> SparseEncoder:
    torch.manual_seed(0)
    return SparseEncoder(
        (32, 24, 41), EncoderSpec(widths=(4, 6, 8, 8), out_width=8, blocks=(1, 1, 1, 1), norm=Norm(1e-3, 1.0))
    )


def voxels(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coords = torch.nonzero(torch.rand(2, 32, 24, 41, generator=generator) < 0.01)
    return torch.randn(len(coords), 5, generator=generator), coords


def test_encoder_takes_voxels_in_any_order(encoder):
    features, coords = voxels()
    encoder(features, coords, 2)  # statistics
    encoder.eval()
    shuffle = torch.randperm(len(coords), generator=torch.Generator().manual_seed(1))
    assert torch.equal(encoder(features, coords, 2), encoder(features[shuffle], coords[shuffle], 2))


def test_encoder_of_a_batch_is_that_of_its_samples(encoder):
    features, coords = voxels()
    encoder(features, coords, 2)
    encoder.eval()
    both = encoder(features, coords, 2)
    for sample in range(2):
        own = coords[:, 0] == sample
        alone = encoder(features[own], coords[own] - coords.new_tensor([sample, 0, 0, 0]), 1)
        torch.testing.assert_close(alone[0], both[sample], atol=1e-5, rtol=1e-5)


def test_encoder_trains_in_bfloat16(encoder):
    features, coords = voxels()
    encoder(features, coords, 2).square().mean().backward()
    exact = {name: p.grad.clone() for name, p in encoder.named_parameters()}
    encoder.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bev = encoder(features, coords, 2)
    bev.float().square().mean().backward()
    assert bev.dtype == torch.bfloat16
    for name, p in encoder.named_parameters():
        assert p.grad.dtype == torch.float32
        assert F.cosine_similarity(p.grad.flatten(), exact[name].flatten(), dim=0) > 0.9, name


def test_segment_sum_with_empty_segments():
    rows = torch.arange(8.0).reshape(4, 2)
    got = segment_sum(rows, torch.tensor([3, 0, 0]), torch.tensor([0, 0, 1, 3]))
    assert got.tolist() == [[0, 0], [6, 7], [0, 2], [0, 0]]
    nothing = segment_sum(rows, torch.zeros(0, dtype=torch.int32), torch.zeros(3, dtype=torch.int32))
    assert nothing.tolist() == [[0, 0]] * 3


def test_segment_sum_of_bfloat16_is_rounded_once():
    rows = torch.cat([torch.full((1, 8), 256.0), torch.ones(64, 8)]).bfloat16()  # 256 + 1 is 256 in bfloat16
    got = segment_sum(rows, torch.arange(65, dtype=torch.int32), torch.zeros(1, dtype=torch.int32))
    assert got.dtype == torch.bfloat16
    assert got.tolist() == [[320.0] * 8]
