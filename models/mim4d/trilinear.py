"""Trilinear samples of a volume, with derivatives of every order, also those by the place.

A sample is the weighted sum of its eight corners' rows of a table (voxels x channels). That is linear in the weights
and linear in the table, so three operations are each other's derivatives and close on themselves: rows summed up by
weights (`weighted`), rows multiplied with a vector (`products`), and vectors put into rows (`_Put`). None of them
makes a tensor of (points, 8, channels), and what is added up into a row is so in one order. bench/render.py compares
them with a plain gather.

Places count voxels: i is the centre of voxel i. Beyond the outermost centres a sample fades to zero within one voxel.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.shapes import check_shape

_CORNERS = 8


class Table(NamedTuple):
    """A batch of volumes as rows: voxel (b, z, y, x) is row ((b Z + z) Y + y) X + x."""

    rows: Tensor  # (B Z Y X, C)
    batch: int
    shape: tuple[int, int, int]  # Z, Y, X

    @classmethod
    def of(cls, volume: Tensor) -> "Table":
        """volume: (B, C, Z, Y, X)."""
        check_shape("the volume", volume, *[None] * 5)
        batch, channels, *shape = volume.shape
        depth, height, width = shape
        return cls(volume.permute(0, 2, 3, 4, 1).reshape(-1, channels), batch, (depth, height, width))


class Corners(NamedTuple):
    """The eight voxels around each of P points of every volume: B P points, the lower corner first, x fastest."""

    voxels: Tensor  # (B P, 8) int32, rows of the table; any where there is no voxel
    weights: Tensor  # (B P, 8), zero where there is no voxel
    axis_weights: tuple[Tensor, Tensor, Tensor]  # of x, y, z: (B P, 2), whose products the weights are
    axis_slopes: tuple[Tensor, Tensor, Tensor]  # (B P, 2): their derivatives by the place: -1 and 1, or 0
    order: Tensor | None  # (8 B P,) int32, which sorts the voxels, flat; None where no gradient is recorded
    starts: Tensor | None  # (rows,) int32: where each row's begin in that order

    @classmethod
    def of(cls, places: Tensor, table: Table) -> "Corners":
        """places: (B, P, 3), x, y, z in voxels."""
        check_shape("places", places, table.batch, None, 3)
        depth, height, width = table.shape
        (x, wx, sx), (y, wy, sy), (z, wz, sz) = (
            _along(place.reshape(-1), size) for place, size in zip(places.unbind(-1), (width, height, depth))
        )
        batch = torch.arange(table.batch, dtype=torch.int32, device=places.device)
        first = (batch * depth).repeat_interleave(places.shape[1])[:, None]
        voxels = _outer((z + first) * (height * width), y * width, x, torch.add)
        order = starts = None
        if torch.is_grad_enabled():
            order, starts = _sorted(voxels, len(table.rows))
        weights = _outer(wz, wy, wx, torch.mul)
        return cls(voxels, weights, (wx, wy, wz), (sx, sy, sz), order, starts)

    def slopes(self) -> Tensor:
        """(B P, 8, 3): the weights' derivatives by the place."""
        (wx, wy, wz), (sx, sy, sz) = self.axis_weights, self.axis_slopes
        by_axis = [_outer(*factors, torch.mul) for factors in ((wz, wy, sx), (wz, sy, wx), (sz, wy, wx))]
        return torch.stack(by_axis, -1)


def _along(place: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of one axis: both neighbours' indices (int32), weights and slopes, each (points, 2)."""
    lower = place.detach().floor()
    share = place - lower
    neighbours = torch.stack([lower, lower + 1], -1)
    there = (neighbours >= 0) & (neighbours < size)
    weights = torch.stack([1 - share, share], -1) * there
    lower_there, upper_there = there.to(place.dtype).unbind(-1)
    slopes = torch.stack([-lower_there, upper_there], -1)
    return neighbours.clamp(0, size - 1).int(), weights, slopes


def _outer(z: Tensor, y: Tensor, x: Tensor, combine: Any) -> Tensor:
    """(points, 8) of three (points, 2)."""
    return combine(combine(z[:, :, None, None], y[:, None, :, None]), x[:, None, None, :]).flatten(1)


def _sorted(voxels: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The order and starts of `Corners`. Stable: sums add up in one order, whatever the device."""
    by_row, order = voxels.reshape(-1).sort(stable=True)
    bounds = torch.arange(rows, dtype=torch.int32, device=voxels.device)
    return order.int(), torch.searchsorted(by_row, bounds, out_int32=True)


def weighted(corners: Corners, table: Table) -> Tensor:
    """(B P, C): sums of the corners' rows, by their weights."""
    return _Weighted.apply(corners.weights, table.rows, corners.voxels, corners.order, corners.starts)


def products(vectors: Tensor, corners: Corners, table: Table) -> Tensor:
    """(B P, 8): inner products of each point's vector (B P, C) with its corners' rows."""
    return _Products.apply(vectors, table.rows, corners.voxels, corners.order, corners.starts)


def trilinear(volume: Tensor, places: Tensor) -> Tensor:
    """(B, P, C): samples of volumes (B, C, Z, Y, X) at places (B, P, 3): x, y, z in voxels."""
    table = Table.of(volume)
    return weighted(Corners.of(places, table), table).unflatten(0, places.shape[:2])


def _bags(index: Tensor, rows: Tensor, starts: Tensor | None, weights: Tensor) -> Tensor:
    """Weighted sums of rows. Detached: else it would also make, slowly, what its own backward pass needs."""
    return F.embedding_bag(index, rows.detach(), starts, mode="sum", per_sample_weights=weights.detach())


class _Weighted(torch.autograd.Function):
    """out[p] = sum over k of weights[p, k] * rows[voxels[p, k]]."""

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, rows: Tensor, voxels: Tensor, order: Tensor | None, starts: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(weights, rows, voxels, order, starts)
        return _bags(voxels, rows, None, weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, rows, voxels, order, starts = ctx.saved_tensors
        by_weights = _Products.apply(grad, rows, voxels, order, starts) if ctx.needs_input_grad[0] else None
        by_rows = _Put.apply(weights, grad, len(rows), voxels, order, starts) if ctx.needs_input_grad[1] else None
        return by_weights, by_rows, None, None, None


class _Products(torch.autograd.Function):
    """out[p, k] = vectors[p] . rows[voxels[p, k]]."""

    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, rows: Tensor, voxels: Tensor, order: Tensor | None, starts: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(vectors, rows, voxels, order, starts)
        points = torch.arange(len(voxels), dtype=voxels.dtype, device=voxels.device)
        # What embedding_bag's own backward calls: half as long as gathering the rows, and nothing of their size.
        flat = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            vectors.contiguous(),
            rows,
            voxels.reshape(-1),
            points * _CORNERS,
            points.repeat_interleave(_CORNERS),
            0,
        )
        return flat.view(voxels.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        vectors, rows, voxels, order, starts = ctx.saved_tensors
        by_vectors = _Weighted.apply(grad, rows, voxels, order, starts) if ctx.needs_input_grad[0] else None
        by_rows = _Put.apply(grad, vectors, len(rows), voxels, order, starts) if ctx.needs_input_grad[1] else None
        return by_vectors, by_rows, None, None, None


class _Put(torch.autograd.Function):
    """out[r] = sum of weights[p, k] * vectors[p] over all (p, k) with voxels[p, k] == r; (count, C)."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        vectors: Tensor,
        count: int,
        voxels: Tensor,
        order: Tensor | None,
        starts: Tensor | None,
    ) -> Tensor:
        if order is None or starts is None:
            order, starts = _sorted(voxels, count)
        ctx.save_for_backward(weights, vectors, voxels, order, starts)
        # Each row gathers what belongs to it: several times as fast as adding into the rows, and always in one order.
        by_row = weights.reshape(-1).index_select(0, order)
        return _bags(order // _CORNERS, vectors.contiguous(), starts, by_row)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, vectors, voxels, order, starts = ctx.saved_tensors
        grad = grad.contiguous()
        by_weights = _Products.apply(vectors, grad, voxels, order, starts) if ctx.needs_input_grad[0] else None
        by_vectors = _Weighted.apply(weights, grad, voxels, order, starts) if ctx.needs_input_grad[1] else None
        return by_weights, by_vectors, None, None, None, None
