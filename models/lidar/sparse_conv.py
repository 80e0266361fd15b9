"""Sparse 3D convolution in plain torch: submanifold and strided, forward and backward, on CPU and CUDA.

A convolution is split in two. The RULEBOOK says which input site meets which output site under which kernel offset; it
depends on the active sites alone, so it is built once per resolution and shared by every layer there. The ARITHMETIC
then is gather, one matrix product per kernel offset, and a segment sum: no atomics, hence the same bits every time.

Sites are kept sorted by (batch, x, y, z), so that neighbours are found by binary search in the sorted linear keys and
gathers walk memory forwards.

Shape legend: N input sites, M output sites, P pairs (rules), K kernel offsets.
"""

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.lidar.segment import segment_sum

Triple = tuple[int, int, int]

PAIRS_PER_CHUNK = 32_768


class Chunk(NamedTuple):
    """The pairs of some consecutive output sites, grouped by kernel offset."""

    first: int  # output sites first:last
    last: int
    source: Tensor  # (p,) int64, input site of each pair
    target: Tensor  # (p,) int64, output site of each pair
    bounds: list[int]  # (K + 1): pairs of offset k are bounds[k]:bounds[k + 1]; on the host, so no layer waits for it
    order: Tensor  # (p,) int64: the pairs by output site
    starts: Tensor  # (last - first,) int64: where each output site's begin in `order`


@dataclass(eq=False)
class Rulebook:
    """Which input site meets which output site under which kernel offset.

    source, target: K tensors of equal lengths, the pairs of each offset, with `target` ascending.
    """

    source: list[Tensor]
    target: list[Tensor]
    num_source: int
    num_target: int

    @cached_property
    def chunks(self) -> list[Chunk]:
        """The pairs in pieces of about PAIRS_PER_CHUNK, by output site.

        Small pieces keep the rows between gather and sum in the processor's cache, and their buffers small enough for
        malloc to hand out again: fresh pages from the kernel cost more than the arithmetic.
        """
        kernel = len(self.source)
        lengths = [len(t) for t in self.target]
        pairs = sum(lengths)
        if pairs == 0:
            return []
        count = -(-pairs // PAIRS_PER_CHUNK)
        edges = [self.num_target * i // count for i in range(count + 1)]
        places = torch.tensor(edges, device=self.target[0].device)
        cuts = torch.stack([torch.searchsorted(t, places) for t in self.target]).tolist()  # (K, chunks + 1)
        pieces = [(k, cuts[k][c], cuts[k][c + 1]) for c in range(count) for k in range(kernel)]
        source = torch.cat([self.source[k][a:b] for k, a, b in pieces])
        target = torch.cat([self.target[k][a:b] for k, a, b in pieces])
        # A table (output site, offset) of pair numbers, read row by row, is the pairs by output site: no sorting.
        numbers = torch.arange(pairs, device=source.device)
        offset = torch.repeat_interleave(
            torch.tensor([k for k, _, _ in pieces], device=source.device),
            torch.tensor([b - a for _, a, b in pieces], device=source.device),
            output_size=pairs,
        )
        table = numbers.new_full((self.num_target, kernel), -1)
        table[target, offset] = numbers
        filled = table >= 0
        order, per_target = table[filled], filled.sum(1)
        starts = torch.cumsum(per_target, 0) - per_target

        chunks, begin = [], 0
        for c, (first, last) in enumerate(itertools.pairwise(edges)):
            bounds = [0, *itertools.accumulate(cuts[k][c + 1] - cuts[k][c] for k in range(kernel))]
            end = begin + bounds[-1]
            part = slice(begin, end)
            chunks.append(
                Chunk(first, last, source[part], target[part], bounds, order[part] - begin, starts[first:last] - begin)
            )
            begin = end
        return chunks

    @cached_property
    def transposed(self) -> "Rulebook":
        """Input and output swapped: the rules of the gradient. (Within an offset both sides ascend together.)"""
        return Rulebook(self.target, self.source, self.num_target, self.num_source)


@dataclass(eq=False)
class Sites:
    """The active sites of one resolution, with the rulebooks that start there.

    coords (N, 4) int64: batch, x, y, z, unique and sorted. shape: extent along x, y, z.
    """

    coords: Tensor
    shape: Triple
    batch_size: int
    _strided: dict = field(default_factory=dict, repr=False)

    @classmethod
    def sorted(cls, coords: Tensor, shape: Triple, batch_size: int) -> tuple["Sites", Tensor]:
        """Sites from unique coordinates (N, 4) in any order, and the order (N,) that sorts the features with them."""
        order = torch.argsort(_keys(coords, shape))
        return cls(coords[order], shape, batch_size), order

    @cached_property
    def submanifold3(self) -> Rulebook:
        """Rules of a 3x3x3 convolution whose output sites are its input sites."""
        return submanifold_rules(self)

    def strided(self, kernel: Triple, stride: Triple, padding: Triple) -> tuple["Sites", Rulebook]:
        """Output sites and rules of a strided convolution: an output is active where any input under it is."""
        key = (kernel, stride, padding)
        if key not in self._strided:
            self._strided[key] = strided_rules(self, kernel, stride, padding)
        return self._strided[key]


@dataclass(eq=False)
class SparseTensor:
    """features (N, C) at the N sites."""

    features: Tensor
    sites: Sites

    def dense(self) -> Tensor:
        """(B, C, X, Y, Z), zero where no site is active."""
        b, x, y, z = self.sites.coords.unbind(1)
        out = self.features.new_zeros(self.sites.batch_size, *self.sites.shape, self.features.shape[1])
        out[b, x, y, z] = self.features
        return out.permute(0, 4, 1, 2, 3)


def submanifold_rules(sites: Sites) -> Rulebook:
    """Rules of the 3x3x3 submanifold convolution. Offsets in the order of the kernel (kx, ky, kz)."""
    n = len(sites.coords)
    # One empty layer around the grid, so that a neighbour across the border has a key of no site.
    shape = tuple(s + 2 for s in sites.shape)
    keys = _keys(sites.coords + sites.coords.new_tensor([0, 1, 1, 1]), shape)
    everyone = torch.arange(n, device=keys.device)
    pairs: list[tuple[Tensor, Tensor] | None] = [None] * 27
    pairs[13] = (everyone, everyone)
    end = keys.new_full((2,), torch.iinfo(keys.dtype).max)
    padded = torch.cat([keys, end])
    # Half of the offsets suffice: (i, j) under an offset is (j, i) under the opposite one. Within a column of three
    # the neighbours stand next to each other in sorted order: one search serves all three.
    for dx, dy in ((0, 0), (0, 1), (1, -1), (1, 0), (1, 1)):
        own = (dx, dy) == (0, 0)  # the site's own column: above it can only be the next site
        column = keys + (dx * shape[1] + dy) * shape[2]
        position = everyone + 1 if own else torch.searchsorted(keys, column - 1)
        for dz in (1,) if own else (-1, 0, 1):
            wanted = column + dz
            if dz > -1:
                position = position + (padded[position] < wanted)
            target = torch.nonzero(padded[position] == wanted)[:, 0]
            source = position[target]
            k = ((dx + 1) * 3 + dy + 1) * 3 + dz + 1
            pairs[k], pairs[26 - k] = (source, target), (target, source)
    source, target = zip(*pairs)
    return Rulebook(list(source), list(target), n, n)


def strided_rules(sites: Sites, kernel: Triple, stride: Triple, padding: Triple) -> tuple[Sites, Rulebook]:
    """Output sites and rules of a convolution with the given kernel, stride and padding."""
    shape = tuple((s + 2 * p - k) // t + 1 for s, k, t, p in zip(sites.shape, kernel, stride, padding))
    if min(shape) < 1:
        raise ValueError(f"a kernel of {kernel} does not fit into {sites.shape} with padding {padding}")
    coords = sites.coords
    # Along one axis: input c meets output o under kernel position k where o * stride = c + padding - k.
    out_axis, fits_axis = [], []
    for axis in range(3):
        raw = coords[:, axis + 1, None] + padding[axis] - torch.arange(kernel[axis], device=coords.device)
        out = torch.div(raw, stride[axis], rounding_mode="floor")
        out_axis.append(out.unbind(1))
        fits_axis.append(((raw == out * stride[axis]) & (out >= 0) & (out < shape[axis])).unbind(1))
    sources, out_keys = [], []
    for kx, ky, kz in itertools.product(*map(range, kernel)):
        source = torch.nonzero(fits_axis[0][kx] & fits_axis[1][ky] & fits_axis[2][kz])[:, 0]
        x, y, z = out_axis[0][kx][source], out_axis[1][ky][source], out_axis[2][kz][source]
        sources.append(source)
        out_keys.append(((coords[source, 0] * shape[0] + x) * shape[1] + y) * shape[2] + z)
    unique, target = torch.unique(torch.cat(out_keys), return_inverse=True)
    targets = list(target.split([len(s) for s in sources]))
    out_sites = Sites(_coords(unique, shape), shape, sites.batch_size)
    return out_sites, Rulebook(sources, targets, len(coords), len(unique))


class _Convolve(torch.autograd.Function):
    """out[t] = sum over pairs (s, t) of offset k: features[s] @ weight[k]."""

    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, book: Rulebook) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.book = book
        return _convolve(features, weight, book)

    @staticmethod
    def backward(ctx, grad: Tensor):
        features, weight = ctx.saved_tensors
        grad_features = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_features = _convolve(grad, weight.transpose(1, 2), ctx.book.transposed)
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(features, grad, weight, ctx.book)
        return grad_features, grad_weight, None


def _convolve(features: Tensor, weight: Tensor, book: Rulebook) -> Tensor:
    """(M, out) from features (N, in) and weight (K, in, out)."""
    out = features.new_zeros(book.num_target, weight.shape[2])
    gathered, products = _buffers(features, book, weight.shape[1:])
    for chunk in book.chunks:
        rows, result = gathered[: len(chunk.source)], products[: len(chunk.source)]
        torch.index_select(features, 0, chunk.source, out=rows)
        for k, (a, b) in enumerate(itertools.pairwise(chunk.bounds)):
            if b > a:
                torch.mm(rows[a:b], weight[k], out=result[a:b])
        out[chunk.first : chunk.last] = segment_sum(result, chunk.order, chunk.starts)
    return out


def _weight_gradient(features: Tensor, grad: Tensor, weight: Tensor, book: Rulebook) -> Tensor:
    """(K, in, out): the sum over pairs of the outer products of an input row and an output's gradient."""
    total = torch.zeros_like(weight)
    gathered, gradients = _buffers(features, book, weight.shape[1:])
    for chunk in book.chunks:
        rows, grad_rows = gathered[: len(chunk.source)], gradients[: len(chunk.source)]
        torch.index_select(features, 0, chunk.source, out=rows)
        torch.index_select(grad, 0, chunk.target, out=grad_rows)
        for k, (a, b) in enumerate(itertools.pairwise(chunk.bounds)):
            if b > a:
                total[k].addmm_(rows[a:b].T, grad_rows[a:b])
    return total


def _buffers(like: Tensor, book: Rulebook, widths: tuple[int, int]) -> tuple[Tensor, Tensor]:
    longest = max((len(chunk.source) for chunk in book.chunks), default=0)
    return like.new_empty(longest, widths[0]), like.new_empty(longest, widths[1])


class SparseConv3d(nn.Module):
    """A bias-free 3D convolution over active sites. Weight (kx, ky, kz, in, out), the layout of spconv 1 and MIT."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Triple, stride: Triple, padding: Triple):
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.weight = nn.Parameter(_init_weight(kernel, in_channels, out_channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        sites, book = x.sites.strided(self.kernel, self.stride, self.padding)
        return SparseTensor(_Convolve.apply(x.features, self.weight.flatten(0, 2), book), sites)


class SubmanifoldConv3d(nn.Module):
    """A bias-free 3x3x3 convolution whose output sites are its input sites. Weight (3, 3, 3, in, out)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.weight = nn.Parameter(_init_weight((3, 3, 3), in_channels, out_channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        book = x.sites.submanifold3
        return SparseTensor(_Convolve.apply(x.features, self.weight.flatten(0, 2), book), x.sites)


def _init_weight(kernel: Triple, in_channels: int, out_channels: int) -> Tensor:
    """He initialisation over the kernel's fan-in of the sites that are usually there (a third of a dense kernel)."""
    fan_in = max(1.0, kernel[0] * kernel[1] * kernel[2] / 3) * in_channels
    return torch.randn(*kernel, in_channels, out_channels) * (2.0 / fan_in) ** 0.5


def _keys(coords: Tensor, shape: Triple) -> Tensor:
    """(N,) int64 linear keys of coordinates (N, 4), ascending with (batch, x, y, z)."""
    b, x, y, z = coords.unbind(1)
    return ((b * shape[0] + x) * shape[1] + y) * shape[2] + z


def _coords(keys: Tensor, shape: Triple) -> Tensor:
    """Coordinates (N, 4) of linear keys (N,)."""
    columns = []
    for extent in reversed(shape):
        columns.append(keys % extent)
        keys = torch.div(keys, extent, rounding_mode="floor")
    return torch.stack([keys, *reversed(columns)], 1)
