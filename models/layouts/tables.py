"""Position tables at another size: bias tables of windows, and absolute position embeddings."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def resize_bias_table(table: Tensor, side: int) -> Tensor:
    """A window's bias table (s^2, heads) for offsets -(s // 2) .. s // 2 along both axes, as one of (side^2, heads).

    A larger table takes its values from a cubic spline through the old ones, which stand on a geometric grid: dense
    near offset 0, where an offset of one token stays one token, and reaching the new ends (MixMAE's and BEiT's way).
    A smaller one is the middle of the old: an offset keeps its bias. The same size is returned as it is.
    """
    old, ends = math.isqrt(len(table)), side // 2
    if old == side:
        return table
    if old == 1:
        return table.expand(side * side, -1).clone()
    values = table.double().numpy().reshape(old, old, -1)
    if side < old:
        middle = slice(old // 2 - ends, old // 2 + ends + 1)
        values = values[middle, middle]
    else:
        from scipy.interpolate import make_interp_spline  # a second of import, for a table that grows

        knots = geometric_offsets(old // 2, ends)
        wanted = np.clip(np.arange(-ends, ends + 1), knots[0], knots[-1])
        for axis in (0, 1):
            values = make_interp_spline(knots, values, min(3, old - 1), axis=axis)(wanted)
    return torch.from_numpy(values.reshape(side * side, -1)).to(table.dtype)


def geometric_offsets(count: int, end: float) -> np.ndarray:
    """2 count + 1 ascending offsets about 0 with steps 1, q, q^2, ..., such that the last is `end` (at least count)."""
    ratio = 1.0
    if 1 < count < end:
        from scipy.optimize import brentq

        ratio = brentq(lambda q: sum(q**k for k in range(count)) - end, 1, end)
    half = np.cumsum(ratio ** np.arange(count))
    return np.concatenate([-half[::-1], [0], half])


def resize_position_embedding(embedding: Tensor, side: int) -> Tensor:
    """A position embedding (1, C, s, s) as (1, C, side, side), bicubic; the same size is returned as it is."""
    if embedding.shape[-1] == side:
        return embedding
    return F.interpolate(embedding.float(), (side, side), mode="bicubic", align_corners=False).to(embedding.dtype)


def tokens_to_grid(embedding: Tensor) -> Tensor:
    """A position embedding of a square of tokens (1, s^2, C) as (1, C, s, s); any other tensor as it is."""
    side = math.isqrt(embedding.shape[1]) if embedding.ndim == 3 else 0
    if side == 0 or side**2 != embedding.shape[1]:
        return embedding
    return embedding.unflatten(1, (side, side)).permute(0, 3, 1, 2).contiguous()


def grid_to_tokens(embedding: Tensor) -> Tensor:
    """The inverse of `tokens_to_grid`."""
    return embedding.flatten(2).transpose(1, 2).contiguous()
