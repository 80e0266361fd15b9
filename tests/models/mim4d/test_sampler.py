import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import mim4d_render_reference as slow
from models.mim4d import sampler
from models.mim4d.field import Field

LOW, HIGH = [-1.0, -0.7, -0.2], [0.8, 1.0, 0.3]
SHARES = st.floats(0, 1, exclude_max=True)


def stretch(origin: list[float], direction: list[float], near: float = 0.05) -> tuple[float, float, bool]:
    found = sampler.stretch(*(torch.tensor([v], dtype=torch.float64) for v in (origin, direction)), LOW, HIGH, near)
    return float(found.near), float(found.far), bool(found.hit)


def inside(point: Tensor) -> Tensor:
    return ((point > torch.tensor(LOW)) & (point < torch.tensor(HIGH))).all(-1)


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=3), st.lists(st.floats(-1, 1), min_size=3, max_size=3))
def test_a_stretch_is_where_small_steps_are_inside(origin, direction):
    length = math.hypot(*direction)
    if length < 0.1 or min(abs(d) for d in direction) < 1e-3 * length:
        return
    direction = [d / length for d in direction]
    near, far, hit = stretch(origin, direction)
    steps = torch.arange(0.05, 6, 0.01, dtype=torch.float64)
    there = inside(torch.tensor(origin) + steps[:, None] * torch.tensor(direction))
    if there.any():
        assert hit
        assert near == pytest.approx(float(steps[there].min()), abs=0.02)
        assert far == pytest.approx(float(steps[there].max()), abs=0.02)
    else:
        assert not hit or far - near < 0.02


@pytest.mark.parametrize(
    ("origin", "direction", "wanted"),
    [
        ([0, 0, 0], [1, 0, 0], (0.05, 0.8)),  # starts inside, parallel to two axes
        ([0, 0, 0], [0, -1, 0], (0.05, 0.7)),
        ([0, 0, -3], [0, 0, 1], (2.8, 3.3)),
        ([0, 0, 3], [0, 0, 1], None),  # looks away
        ([0, 0, 3], [1, 0, 0], None),  # passes above
        ([-3, 0, 0], [0.6, 0.8, 0], None),  # passes beside
        ([0, 0, 0.29], [0, 0, 1], None),  # leaves before it begins
        ([0, 0, 0], [1, -1e-6, -1e-6], (0.05, 0.8)),  # what makes up for the 1e-6
    ],
)
def test_rays_along_axes(origin, direction, wanted):
    near, far, hit = stretch(list(map(float, origin)), list(map(float, direction)))
    assert hit == (wanted is not None)
    assert math.isfinite(near)
    assert math.isfinite(far)
    if wanted is not None:
        assert (near, far) == pytest.approx(wanted, rel=1e-5)


@given(st.integers(1, 30), st.none() | SHARES)
def test_even_edges(count, jitter):
    like = torch.zeros((), dtype=torch.float64)
    edges = sampler.even(count, None if jitter is None else torch.tensor(jitter, dtype=torch.float64), like)
    torch.testing.assert_close(edges.tolist(), slow.even_edges(count, jitter))
    assert (edges.diff() >= 0).all()


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12), st.floats(0.01, 0.5), st.sampled_from([64.0, 128.0]))
def test_weights_of_sections(sdf, length, sharpness):
    distances = [length * i**1.1 for i in range(len(sdf) + 1)]
    got = sampler.section_weights(
        *(torch.tensor(v, dtype=torch.float64) for v in (sdf, torch.tensor(distances).double().diff().tolist())),
        sharpness,
    )
    torch.testing.assert_close(got.tolist(), slow.section_weights(sdf, distances, sharpness), rtol=1e-4, atol=1e-7)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.integers(1, 9), st.none() | SHARES, st.integers(0, 99))
def test_edges_by_weight(weights, count, jitter, seed):
    edges = torch.rand(len(weights) + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).sort()[0]
    weights = torch.tensor(weights, dtype=torch.float64)
    jitters = None if jitter is None else torch.tensor(jitter, dtype=torch.float64)
    got = sampler.by_weight(edges, weights, count, jitters)
    wanted = slow.edges_by_weight(edges.tolist(), weights.tolist(), count, jitter)
    # A quantile exactly on a border may fall to either side of it, which is the same place but for empty sections.
    close = (got - torch.tensor(wanted, dtype=torch.float64)).abs() < 1e-6
    assert close.float().mean() >= 1 - 2 / (count + 1) if 0 in weights else close.all()
    assert (got.diff() >= 0).all()


def test_merged_edges_are_sorted_and_the_order_tells_whose_they_are():
    edges, new = torch.tensor([[0.0, 0.4, 0.8, 1.0]]), torch.tensor([[0.1, 0.5, 0.9]])
    merged, order = sampler.merge(edges, new)
    assert merged.tolist() == [pytest.approx([0, 0.1, 0.4, 0.5, 0.8, 1])]
    assert order.tolist() == [[0, 3, 1, 4, 2]]


def test_composed_weights():
    alphas = torch.rand(7, dtype=torch.float64)
    torch.testing.assert_close(sampler.compose(alphas), slow.compose(alphas))


def sphere(points: Tensor) -> Tensor:
    return (points - torch.tensor([0.1, -0.05, 0.02])).norm(dim=-1) - 0.25


def plane(points: Tensor) -> Tensor:
    return points[..., 2] + 0.13


@pytest.mark.parametrize("surface", [sphere, plane])
def test_the_depth_of_a_known_surface(surface):
    """In a box of +-8 m (here 1): to a centimetre, of rays that meet it not too flatly."""
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(500, 3, generator=generator)
    origins = 0.8 * origins / origins.norm(dim=1, keepdim=True)
    origins[:, 2].abs_()
    targets = torch.randn(500, 3, generator=generator) * 0.1 + torch.tensor([0.1, -0.05, -0.05])
    directions = targets - origins
    directions /= directions.norm(dim=1, keepdim=True)

    found = sampler.stretch(origins, directions, [-1.0] * 3, [1.0] * 3, 0.01)
    edges = sampler.even(48, torch.rand(500, generator=generator), found.near)

    def points(edges: Tensor) -> Tensor:
        return (origins[:, None] + directions[:, None] * found.at(edges)[..., None]).requires_grad_()

    for step in range(3):
        sdf = surface(points(edges[:, :-1])).detach()
        weights = sampler.section_weights(sdf, found.at(edges).diff(), 64 * 2**step)
        edges, _ = sampler.merge(edges, sampler.by_weight(edges, weights, 24, torch.rand(500, generator=generator)))
    places = points(edges[:, :-1])
    sdf = surface(places)
    (gradients,) = torch.autograd.grad(sdf.sum(), places)
    field = Field(1, 1, 1, 1, 1)
    field.deviation.data.fill_(0.8)
    lengths = found.at(edges).diff()
    alphas = field.alphas(sdf, gradients, directions[:, None].expand_as(places), lengths, 1.0)
    weights = sampler.compose(alphas)
    depths = (weights * found.at(edges)[:, :-1]).sum(1) / weights.sum(1)

    wanted = first_crossing(surface, origins, directions)
    steep = (-(gradients * directions[:, None]).sum(-1)).gather(1, weights.argmax(1, keepdim=True))[:, 0] > 0.5
    met = steep & (wanted < found.far - 0.05)
    assert met.sum() > 100
    assert (depths - wanted)[met].abs().max() * 8 < 0.01


def first_crossing(surface, origins: Tensor, directions: Tensor) -> Tensor:
    """By sphere tracing."""
    distances = torch.zeros(len(origins))
    for _ in range(200):
        distances = distances + surface(origins + directions * distances[:, None])
    return distances
