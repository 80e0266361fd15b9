"""Where a ray is sampled (NeuS, arXiv 2106.10689): evenly first, then more where its signed distances cross zero.

Places on a ray are shares of its stretch through the box: 0 where it enters, 1 where it leaves. A sample stands at the
start of its section; `edges` are the sections' borders, one more than samples. Nothing here has a gradient.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_EPSILON = 1e-5
_PARALLEL = 1e-6


class Stretch(NamedTuple):
    """Of rays (...): where they enter and leave the box, and whether they pass through it at all."""

    near: Tensor
    far: Tensor
    hit: Tensor  # bool; where False, near and far are finite and mean nothing

    def at(self, shares: Tensor) -> Tensor:
        """Distances (..., S) of shares (..., S)."""
        return shares * self.far[..., None] + (1 - shares) * self.near[..., None]


def stretch(origins: Tensor, directions: Tensor, low: list[float], high: list[float], near: float) -> Stretch:
    """What of rays (..., 3) lies in the box from low to high, and at least `near` away.

    As in the original every component of a direction is 1e-6 more: no division by zero, and the ends are off by
    1e-6 / component of their distance.
    """
    starts, ends = [], []
    for origin, direction, lower, upper in zip(origins.unbind(-1), directions.unbind(-1), low, high):
        slope = direction + _PARALLEL
        slope = torch.where(slope == 0, _PARALLEL, slope)
        one, other = (lower - origin) / slope, (upper - origin) / slope
        starts.append(torch.minimum(one, other))
        ends.append(torch.maximum(one, other))
    start = torch.stack(starts).amax(0).clamp(min=near)
    end = torch.stack(ends).amin(0)
    hit = start < end
    return Stretch(torch.where(hit, start, near), torch.where(hit, end, near + 1), hit)


def even(count: int, jitter: Tensor | None, like: Tensor) -> Tensor:
    """Edges (..., count + 1) of `count` sections. jitter: (...) in [0, 1), or None: the sections are equal.

    Each edge moves between the centres of its neighbouring sections, all of a ray by the same share.
    like: (...), what they are made like.
    """
    edges = torch.linspace(0, 1, count + 1, dtype=like.dtype, device=like.device)
    if jitter is None:
        return edges.expand(*like.shape, -1)
    centres = (edges[1:] + edges[:-1]) / 2
    upper, lower = torch.cat([centres, edges[-1:]]), torch.cat([edges[:1], centres])
    return lower + (upper - lower) * jitter[..., None]


def compose(alphas: Tensor) -> Tensor:
    """Weights of samples (..., S): what of the light each takes, after those before it."""
    left = (1 - alphas + 1e-7).cumprod(-1)
    return alphas * torch.cat([torch.ones_like(left[..., :1]), left[..., :-1]], -1)


def section_weights(sdf: Tensor, lengths: Tensor, sharpness: float) -> Tensor:
    """Weights (..., S) of sections between samples with these distances (..., S), which are `lengths` long.

    The slope of a section is the smaller one of its own and of that before it: a surface that is entered and left
    between two samples still counts. The last section has no end, and weighs nothing.
    """
    begin, end = sdf[..., :-1], sdf[..., 1:]
    lengths = lengths[..., :-1]
    slope = (end - begin) / (lengths + _EPSILON)
    before = torch.cat([torch.zeros_like(slope[..., :1]), slope[..., :-1]], -1)
    half = torch.minimum(before, slope).clamp(-1e3, 0.0) * lengths * 0.5
    middle = (begin + end) * 0.5
    entering, leaving = ((middle + side).mul(sharpness).sigmoid() for side in (-half, half))
    weights = compose((entering - leaving + _EPSILON) / (entering + _EPSILON))
    return torch.cat([weights, torch.zeros_like(weights[..., :1])], -1)


def by_weight(edges: Tensor, weights: Tensor, count: int, jitter: Tensor | None) -> Tensor:
    """Edges (..., count + 1) of new sections, as dense as the sections of `edges` (..., S + 1) weigh (..., S).

    jitter: (...) in [0, 1), the place of the quantiles within their steps, or None: the middle.
    """
    total = weights.sum(-1, keepdim=True)
    missing = (_EPSILON - total).clamp(min=0)
    shares = (weights + missing / weights.shape[-1]) / (total + missing)
    below = torch.cat([torch.zeros_like(total), shares.cumsum(-1).clamp(max=1)], -1)  # (..., S + 1)
    step = 1 / (count + 1)
    quantiles = torch.linspace(0, 1 - step, count + 1, dtype=edges.dtype, device=edges.device)
    if jitter is None:
        quantiles = (quantiles + step / 2).expand(*edges.shape[:-1], -1)
    else:
        quantiles = quantiles + jitter[..., None] / (count + 1)
    above = torch.searchsorted(below, quantiles.contiguous(), right=True)
    first, second = (place.clamp(0, edges.shape[-1] - 1) for place in (above - 1, above))
    base, rise = below.gather(-1, first), below.gather(-1, second) - below.gather(-1, first)
    inside = ((quantiles - base) / torch.where(rise < _EPSILON, 1.0, rise)).clamp(0, 1)
    begin, end = edges.gather(-1, first), edges.gather(-1, second)
    return begin + inside * (end - begin)


def merge(edges: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Edges of both kinds of sections, sorted, and the order (..., S) of their samples, the old ones counted first."""
    starts, order = torch.cat([edges[..., :-1], new[..., :-1]], -1).sort(-1)
    return torch.cat([starts, torch.maximum(edges[..., -1:], new[..., -1:])], -1), order
