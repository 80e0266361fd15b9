"""Deformable attention against the same written out one read at a time."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.mim4d.deformable import DeformableAttention


def an_attention(width=8, heads=2, frames=2, points=4) -> DeformableAttention:
    """Every weight is random, in float64; offsets reach across a small map and beyond."""
    attention = DeformableAttention(width, heads, frames, points).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return attention


def bilinear(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """(C,) of a map (Y, X, C) at a place in cells, whose centres have whole numbers; zero outside."""
    value = np.zeros(image.shape[-1])
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                value += (1 - abs(y - row)) * (1 - abs(x - column)) * image[row, column]
    return value


def read_one_by_one(attention: DeformableAttention, queries, values, shares) -> np.ndarray:
    """Sample by sample, query by query, head by head, frame by frame, point by point."""

    def linear(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
        return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()

    queries, values, shares = (tensor.detach().numpy() for tensor in (queries, values, shares))
    batch, frames, height, width, channels = values.shape
    heads, most, points = attention.heads, attention.frames, attention.points
    each = channels // heads
    out = np.zeros_like(queries)
    for b in range(batch):
        for q in range(height * width):
            offsets = linear(attention.offsets, queries[b, q]).reshape(heads, most, points, 2)
            logits = linear(attention.weights, queries[b, q]).reshape(heads, most, points)
            read = np.zeros(channels)
            for head in range(heads):
                channel = slice(head * each, (head + 1) * each)
                for frame in range(frames):
                    image = linear(attention.value, values[b, frame])[..., channel]
                    shown = np.exp(logits[head, frame])
                    for point in range(points):
                        x, y = np.array([q % width, q // width]) + offsets[head, frame, point]
                        weight = shares[b, frame] * shown[point] / shown.sum()
                        read[channel] += weight * bilinear(image, x, y)
            out[b, q] = linear(attention.out, read)
    return out


@settings(max_examples=20, deadline=None)
@given(
    heads=st.integers(1, 3),
    each=st.integers(1, 3),
    most=st.integers(1, 3),
    points=st.integers(1, 5),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    batch=st.integers(1, 2),
    seed=st.integers(0, 10**6),
    data=st.data(),
)
def test_read_by_read(heads, each, most, points, shape, batch, seed, data):
    frames = data.draw(st.integers(1, most))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        attention = an_attention(heads * each, heads, most, points)
        queries = torch.randn(batch, math.prod(shape), heads * each, dtype=torch.float64)
        values = torch.randn(batch, frames, *shape, heads * each, dtype=torch.float64)
        shares = torch.rand(batch, frames, dtype=torch.float64)
        found = attention(queries, values, shares)
    wanted = read_one_by_one(attention, queries, values, shares)
    np.testing.assert_allclose(found.detach(), wanted, atol=1e-10, rtol=0)


def test_it_begins_with_a_circle():
    """Each head looks its own way, each point a cell farther, on a square; all points count alike."""
    attention = DeformableAttention(8, 4, 3, 2)
    queries = torch.randn(1, 5, 8)
    offsets = attention.offsets(queries).unflatten(-1, (4, 3, 2, 2))
    ways = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    for frame in range(3):
        torch.testing.assert_close(offsets[0, 4, :, frame, 0], ways, atol=1e-6, rtol=0)
        torch.testing.assert_close(offsets[0, 0, :, frame, 1], 2 * ways, atol=1e-6, rtol=0)
    assert not attention.weights(queries).any()
    diagonal = DeformableAttention(8, 8, 1, 1).offsets.bias.view(8, 2)[1]
    torch.testing.assert_close(diagonal, torch.ones(2))


def test_a_map_is_read_where_the_query_stands():
    """Without offsets and with the identity around it, attention to one frame is the frame."""
    attention = DeformableAttention(4, 2, 1, 3)
    with torch.no_grad():
        attention.offsets.bias.zero_()
        for layer in (attention.value, attention.out):
            layer.weight.copy_(torch.eye(4))
    values = torch.randn(1, 1, 3, 5, 4)
    out = attention(torch.randn(1, 15, 4), values, torch.ones(1, 1))
    torch.testing.assert_close(out, values.flatten(0, 3).view(1, 15, 4), atol=1e-5, rtol=0)


def test_places_and_weights_are_the_same_under_autocast():
    attention, queries = an_attention().float(), torch.randn(2, 12, 8)
    with torch.no_grad():
        wanted = attention._reads(queries, 3, 4)
        with torch.autocast("cpu", torch.bfloat16):
            found = attention._reads(queries, 3, 4)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_other_shapes_are_refused():
    attention = DeformableAttention(8, 2, 2, 4)
    queries, values, shares = torch.zeros(1, 12, 8), torch.zeros(1, 2, 3, 4, 8), torch.ones(1, 2)
    with pytest.raises(ValueError, match="queries has the shape"):
        attention(queries[:, 1:], values, shares)
    with pytest.raises(ValueError, match="shares has the shape"):
        attention(queries, values, shares[:, :1])
    with pytest.raises(ValueError, match="values has 3 frames: this attention is of 1 to 2"):
        attention(queries, torch.zeros(1, 3, 3, 4, 8), torch.ones(1, 3))
    with pytest.raises(ValueError, match="values has 0 frames"):
        attention(queries, values[:, :0], shares[:, :0])
