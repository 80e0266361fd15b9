"""Sparse 3D convolution in plain torch: submanifold and strided, forward and backward, on CPU and CUDA.

A convolution is split in two. The RULEBOOK says which input site meets which output site under which kernel offset; it
depends on the active sites alone, so it is built once per resolution and shared by every layer there. The ARITHMETIC
then is gather, one matrix product per kernel offset, and a segment sum: no atomics, hence the same bits every time.

Sites are kept sorted by (batch, x, y, z), so that neighbours are found by binary search in the sorted linear keys and
gathers walk memory forwards. The host waits for the device a few times while a rulebook is built, never in a layer.

Shape legend: N input sites, M output sites, P pairs (rules), K kernel offsets.
"""

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.lidar.segment import segment_sum

Triple = tuple[int, int, int]

# Output sites a layer computes at a time, by device. On a CPU the products then stay in its cache between the matrix
# product and the sum, and malloc hands their memory out again: fresh pages from the kernel cost more than the
# arithmetic. On a GPU every chunk costs 2 K kernel launches, so that memory alone bounds it.
SITES_PER_CHUNK = {"cpu": 4096, "cuda": 262_144}


class Chunk(NamedTuple):
    """The pairs of the output sites first:last."""

    first: int
    last: int
    pairs: list[tuple[int, int, int]]  # offset k, and a:b of the rulebook's pairs; on the host: no layer waits for it
    order: Tensor  # (p,) int32: the chunk's pairs, numbered from 0 through `pairs`, by output site
    starts: Tensor  # (last - first,) int32: where each output site's begin in `order`


@dataclass(eq=False)
class Rulebook:
    """Which input site meets which output site under which kernel offset.

    source, target (P,) int32, one kernel offset after the other; `lengths` says how many pairs each has. Within an
    offset no site occurs twice on either side, and both sides ascend.
    """

    source: Tensor
    target: Tensor
    lengths: list[int]
    num_source: int
    num_target: int

    @cached_property
    def chunks(self) -> list[Chunk]:
        """The pairs in pieces of SITES_PER_CHUNK output sites."""
        size = SITES_PER_CHUNK[self.target.device.type]
        edges = [*range(0, self.num_target, size), self.num_target]
        targets = self.target.split(self.lengths)
        # (K, chunks + 1): the pairs k of chunk c are cuts[k, c]:cuts[k, c + 1] of that offset's.
        places = size * torch.arange(len(edges), dtype=torch.int32, device=self.target.device)
        cuts = torch.stack([torch.searchsorted(t, places) for t in targets])
        counts = cuts.diff(dim=1)
        shifts = torch.cumsum(counts, 0) - counts - cuts[:, :-1]  # from a pair's number in its offset to the chunk's

        # A counting sort by output site. Nothing collides: within an offset every output site is met once.
        per_target = self.target.new_zeros(self.num_target)
        per_target.index_add_(0, self.target, torch.ones_like(self.target))
        starts = torch.cumsum(per_target, 0, dtype=torch.int32) - per_target
        order, free = torch.empty_like(self.target), starts.long()
        for t, shift, count in zip(targets, shifts.int(), counts):
            place = free[t]
            shift = torch.repeat_interleave(shift, count, output_size=len(t))
            order[place] = shift + torch.arange(len(t), dtype=torch.int32, device=t.device)
            free[t] = place + 1

        chunks, begin = [], 0
        offsets, per_chunk = [0, *itertools.accumulate(self.lengths)], list(zip(*cuts.tolist()))
        for c, (first, last) in enumerate(itertools.pairwise(edges)):
            ranges = zip(range(len(targets)), offsets, per_chunk[c], per_chunk[c + 1])
            pairs = [(k, offset + a, offset + b) for k, offset, a, b in ranges if b > a]
            end = begin + sum(b - a for _, a, b in pairs)
            chunks.append(Chunk(first, last, pairs, order[begin:end], starts[first:last] - begin))
            begin = end
        return chunks

    @cached_property
    def longest(self) -> tuple[int, int]:
        """Pairs of the largest offset of any chunk, and of the largest chunk: the sizes of a layer's buffers."""
        per_offset = (b - a for chunk in self.chunks for _, a, b in chunk.pairs)
        return max(per_offset, default=0), max((len(chunk.order) for chunk in self.chunks), default=0)

    @cached_property
    def transposed(self) -> "Rulebook":
        """Input and output swapped: the rules of the gradient."""
        return Rulebook(self.target, self.source, self.lengths, self.num_target, self.num_source)


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
        extent_x, extent_y, extent_z = self.sites.shape
        # Laid out as (B, C, Z, X, Y): folding the height into the channels then copies nothing.
        out = self.features.new_zeros(self.sites.batch_size, self.features.shape[1], extent_z, extent_x, extent_y)
        out[b, :, z, x, y] = self.features
        return out.permute(0, 1, 3, 4, 2)


def submanifold_rules(sites: Sites) -> Rulebook:
    """Rules of the 3x3x3 submanifold convolution. Offsets in the order of the kernel (kx, ky, kz)."""
    n = len(sites.coords)
    # One empty layer around the grid, so that a neighbour across the border has a key of no site.
    x, y, z = sites.shape
    shape = x + 2, y + 2, z + 2
    keys = _keys(sites.coords, shape) + (shape[1] + 1) * shape[2] + 1  # of (batch, x + 1, y + 1, z + 1)
    padded = torch.cat([keys, keys.new_full((1,), torch.iinfo(keys.dtype).max)])
    everyone = torch.arange(n, dtype=torch.int32, device=keys.device)
    # The 13 offsets before the centre suffice: (i, j) under one of them is (j, i) under the opposite one. Within a
    # column of three the neighbours stand next to each other in sorted order: one search serves all three.
    position = everyone.new_empty(13, n)
    hit = torch.empty(13, n, dtype=torch.bool, device=keys.device)
    for k, (dx, dy, dz) in enumerate(itertools.product((-1, 0, 1), repeat=3)):
        if k == 13:
            break
        wanted = keys + ((dx * shape[1] + dy) * shape[2] + dz)
        if (dx, dy) == (0, 0):  # the site's own column: below it can only be the previous site
            torch.clamp(everyone - 1, min=0, out=position[k])
        elif dz == -1:
            torch.searchsorted(keys, wanted, out_int32=True, out=position[k])
        else:  # the place where the last one was sought, or the next if it was there
            torch.add(position[k - 1], hit[k - 1], out=position[k])
        torch.eq(padded.index_select(0, position[k]), wanted, out=hit[k])
    found = torch.nonzero(hit.view(-1))[:, 0]
    lengths = _lengths(found, 13, n)
    source, target = position.view(-1)[found], (found % n).int()
    sources, targets = source.split(lengths), target.split(lengths)
    return Rulebook(
        torch.cat([source, everyone, *reversed(targets)]),
        torch.cat([target, everyone, *reversed(sources)]),
        [*lengths, n, *reversed(lengths)],
        n,
        n,
    )


def strided_rules(sites: Sites, kernel: Triple, stride: Triple, padding: Triple) -> tuple[Sites, Rulebook]:
    """Output sites and rules of a convolution with the given kernel, stride and padding."""
    x, y, z = ((s + 2 * p - k) // t + 1 for s, k, t, p in zip(sites.shape, kernel, stride, padding))
    shape = x, y, z
    if min(shape) < 1:
        raise ValueError(f"a kernel of {kernel} does not fit into {sites.shape} with padding {padding}")
    coords, n = sites.coords, len(sites.coords)
    # Along one axis: input c meets output o under kernel position k where o * stride = c + padding - k.
    out_axis, fits_axis = [], []
    for axis in range(3):
        raw = coords[:, axis + 1] + padding[axis] - torch.arange(kernel[axis], device=coords.device)[:, None]
        out = torch.div(raw, stride[axis], rounding_mode="floor")
        out_axis.append(out)
        fits_axis.append((raw == out * stride[axis]) & (out >= 0) & (out < shape[axis]))
    fits = [x & y & z for x, y, z in itertools.product(*fits_axis)]
    columns = ((coords[:, 0] * shape[0] + out_axis[0])[:, None] * shape[1] + out_axis[1]) * shape[2]  # (kx, ky, N)
    found = torch.nonzero(torch.stack(fits).view(-1))[:, 0]
    lengths = _lengths(found, len(fits), n)
    source = (found % n).int()
    parts = zip(itertools.product(columns.flatten(0, 1), out_axis[2]), source.split(lengths))
    keys = [column.index_select(0, s) + z.index_select(0, s) for (column, z), s in parts]
    unique, target = torch.unique(torch.cat(keys), return_inverse=True)
    out_sites = Sites(_coords(unique, shape), shape, sites.batch_size)
    return out_sites, Rulebook(source, target.int(), lengths, n, len(unique))


def _lengths(found: Tensor, rows: int, columns: int) -> list[int]:
    """How many of `found`, ascending flat indices into a (rows, columns) table, lie in each row."""
    edges = columns * torch.arange(rows + 1, device=found.device)
    return torch.searchsorted(found, edges).diff().tolist()


class _Convolve(torch.autograd.Function):
    """out[t] = sum over pairs (s, t) of offset k: features[s] @ weight[k]."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, book: Rulebook) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.book = book
        return _convolve(features, weight, book)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        grad_features = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_features = _convolve(grad, weight.transpose(1, 2), ctx.book.transposed)
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(features, grad, weight, ctx.book)
        return grad_features, grad_weight, None


def convolve(features: Tensor, weight: Tensor, book: Rulebook) -> Tensor:
    """(M, out) from features (N, in) and weight (kx, ky, kz, in, out), in the features' type or autocast's.

    In half precision each product is accumulated in float32 and rounded, and so is the sum over the offsets.
    """
    device = features.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
    return _Convolve.apply(features.to(dtype), weight.flatten(0, 2).to(dtype), book)


def _convolve(features: Tensor, weight: Tensor, book: Rulebook) -> Tensor:
    """(M, out) from features (N, in) and weight (K, in, out)."""
    out = features.new_empty(book.num_target, weight.shape[2])
    gathered = features.new_empty(book.longest[0], weight.shape[1])
    products = features.new_empty(book.longest[1], weight.shape[2])
    for chunk in book.chunks:
        end = 0
        for k, a, b in chunk.pairs:
            begin, end = end, end + b - a
            rows = torch.index_select(features, 0, book.source[a:b], out=gathered[: b - a])
            torch.mm(rows, weight[k], out=products[begin:end])
        out[chunk.first : chunk.last] = segment_sum(products[:end], chunk.order, chunk.starts)
    return out


def _weight_gradient(features: Tensor, grad: Tensor, weight: Tensor, book: Rulebook) -> Tensor:
    """(K, in, out): the sum over pairs of the outer products of an input row and an output's gradient."""
    total = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    gathered, gradients = (t.new_empty(book.longest[0], t.shape[1]) for t in (features, grad))
    for chunk in book.chunks:
        for k, a, b in chunk.pairs:
            rows = torch.index_select(features, 0, book.source[a:b], out=gathered[: b - a])
            grad_rows = torch.index_select(grad, 0, book.target[a:b], out=gradients[: b - a])
            total[k] += rows.T @ grad_rows
    return total.to(weight.dtype)


class SparseConv3d(nn.Module):
    """A bias-free 3D convolution over active sites. Weight (kx, ky, kz, in, out), the layout of spconv 1 and MIT."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Triple, stride: Triple, padding: Triple):
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.weight = nn.Parameter(_init_weight(kernel, in_channels, out_channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        sites, book = x.sites.strided(self.kernel, self.stride, self.padding)
        return SparseTensor(convolve(x.features, self.weight, book), sites)


class SubmanifoldConv3d(nn.Module):
    """A bias-free 3x3x3 convolution whose output sites are its input sites. Weight (3, 3, 3, in, out)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.weight = nn.Parameter(_init_weight((3, 3, 3), in_channels, out_channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        book = x.sites.submanifold3
        return SparseTensor(convolve(x.features, self.weight, book), x.sites)


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
