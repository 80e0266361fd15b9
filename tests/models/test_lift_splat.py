import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from models.lift_splat import BevGrid, SplatPlan, bev_cells, splat


def materialised_splat(depth_prob, context, cells, num_cells):
    """The obvious way: all frustum features, added into their cells one by one."""
    features = depth_prob.unsqueeze(2) * context.unsqueeze(3)  # (B, N, C, D, H, W)
    out = torch.zeros(len(cells), context.shape[2], num_cells, dtype=context.dtype)
    for b, n, d, h, w in (cells >= 0).nonzero().tolist():
        out[b, :, cells[b, n, d, h, w]] += features[b, n, :, d, h, w]
    return out


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(0, 2**31),
)
def test_splat_is_the_materialised_one(shape, channels, num_cells, seed):
    generator = torch.Generator().manual_seed(seed)
    b, n, _, h, w = shape
    prob = torch.rand(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    context = torch.randn(b, n, channels, h, w, generator=generator, dtype=torch.float64, requires_grad=True)
    cells = torch.randint(-1, num_cells, shape, generator=generator)
    weight = torch.randn(b, channels, num_cells, generator=generator, dtype=torch.float64)
    bev = splat(prob, context, SplatPlan.of(cells, num_cells))
    expected = materialised_splat(prob, context, cells, num_cells)
    torch.testing.assert_close(bev, expected)
    if not (cells >= 0).any():
        assert (bev == 0).all()
        return
    grads = torch.autograd.grad((bev * weight).sum(), (prob, context))
    torch.testing.assert_close(grads, torch.autograd.grad((expected * weight).sum(), (prob, context)))


def test_splat_of_nothing():
    plan = SplatPlan.of(torch.full((1, 2, 3, 2, 2), -1), 6)
    bev = splat(torch.rand(1, 2, 3, 2, 2), torch.rand(1, 2, 4, 2, 2), plan)
    assert torch.equal(bev, torch.zeros(1, 4, 6))


@pytest.mark.parametrize(
    ("prob", "context", "name"),
    [
        ((1, 2, 3, 2, 4), (1, 2, 5, 2, 2), "depth_prob|context|the plan"),
        ((1, 2, 1, 2, 2), (1, 2, 5, 2, 2), "depth_prob"),  # one bin would broadcast over three
        ((1, 2, 3, 2, 2), (1, 1, 5, 2, 2), "context"),  # one camera over two
        ((2, 2, 3, 2, 2), (2, 2, 5, 2, 2), "depth_prob"),
        ((1, 4, 3, 2, 2), (1, 4, 5, 2, 2), "the plan"),
    ],
)
def test_splat_refuses_what_the_plan_is_not_of(prob, context, name):
    plan = SplatPlan.of(torch.zeros(1, 2, 3, 2, 2).long(), 6)
    with pytest.raises(ValueError, match=f"^({name}) has the shape"):
        splat(torch.rand(prob), torch.rand(context), plan)


def test_points_have_three_numbers():
    with pytest.raises(ValueError, match=r"^points has the shape \(4, 2\), not \(4, 3\)$"):
        bev_cells(torch.rand(4, 2), BevGrid((0, 1), (0, 1), (0, 1), 1.0))


class LargestTensor(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_frustum_features_never_exist():
    shape, channels, num_cells = (1, 2, 16, 4, 4), 32, 50
    prob = torch.rand(shape, requires_grad=True)
    context = torch.rand(1, 2, channels, 4, 4, requires_grad=True)
    cells = torch.randint(-1, num_cells, shape)
    with LargestTensor() as largest:
        splat(prob, context, SplatPlan.of(cells, num_cells)).sum().backward()
    bags = num_cells + prob.numel() // 64  # cells and the short bags of the points outside
    assert largest.elements <= max(bags * channels, 2 * prob.numel()) < prob.numel() * channels


class LongestBag(TorchDispatchMode):
    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._embedding_bag.default, torch.ops.aten._embedding_bag_forward_only.default):
            _, indices, starts = args[:3]
            ends = torch.cat([starts[1:], torch.tensor([len(indices)])])
            assert (starts <= ends).all()
            self.entries = max(self.entries, int((ends - starts).max()))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("inside", [0, 1, 100])
def test_points_outside_fill_no_long_bag(inside):
    """A GPU sums a bag with one thread per channel."""
    cells = torch.full((1, 1, 50, 10, 10), -1)
    cells.view(-1)[:inside] = torch.arange(inside)
    prob = torch.rand(cells.shape)
    with LongestBag() as longest:
        bev = splat(prob, torch.ones(1, 1, 2, 10, 10), SplatPlan.of(cells, 100))
    assert 0 < longest.entries <= 64
    assert torch.equal(bev[0, 0, :inside], prob.view(-1)[:inside])
    assert (bev[0, :, inside:] == 0).all()


def test_sums_are_the_same_every_time():
    """Bit for bit, though many points share a cell, on any number of threads."""
    generator = torch.Generator().manual_seed(0)
    prob, context = (torch.randn(shape, generator=generator) for shape in ((2, 3, 8, 9, 9), (2, 3, 16, 9, 9)))
    cells = torch.randint(-1, 5, prob.shape, generator=generator)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        inputs = prob.clone().requires_grad_(), context.clone().requires_grad_()
        bev = splat(*inputs, SplatPlan.of(cells, 5))
        results.append([bev, *torch.autograd.grad(bev.square().sum(), inputs)])
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other))


def test_cells():
    grid = BevGrid((-2.0, 2.0), (-1.0, 2.0), (-5.0, 3.0), 0.5)
    assert grid.shape == (8, 6)
    points = torch.tensor([[-2, -1, 0], [1.99, 1.99, 2.9], [0.1, -0.3, -5], [2, 0, 0], [0, 0, 3], [-2.01, 0, 0]])
    assert bev_cells(points, grid).tolist() == [0, 47, 4 * 6 + 1, -1, -1, -1]
    assert bev_cells(points, grid, order="yx").tolist() == [0, 47, 1 * 8 + 4, -1, -1, -1]
    # The original rounds toward zero: up to one cell outside the lower borders counts as inside.
    below = torch.tensor([[-2.4, 0.1, 0], [0.1, 0.1, -12], [-2.6, 0, 0]])
    assert bev_cells(below, grid).tolist() == [-1, -1, -1]
    assert bev_cells(below, grid, truncate=True).tolist() == [2, 4 * 6 + 2, -1]


@pytest.mark.parametrize("order", ["xy", "yx"])
def test_layouts_hold_the_same_map(order):
    grid = BevGrid((0.0, 3.0), (0.0, 2.0), (-1.0, 1.0), 1.0)
    point = torch.tensor([2.5, 0.5, 0.0])
    shape = grid.shape if order == "xy" else grid.shape[::-1]
    bev = torch.zeros(6)
    bev[bev_cells(point, grid, order)] = 1
    index = (2, 0) if order == "xy" else (0, 2)
    assert bev.view(shape)[index] == 1
