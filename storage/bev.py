"""`bev.zarr`: the teacher's BEV features of every sample, written in parts, read one sample at a time.

Encodings `cells` (lossless) and `compact` (mantissas rounded to 4 bits) keep the active cells alone, those with any
feature that is not zero; `dense` keeps whole maps, for teachers that leave no cell empty. Why: docs/bev-cache.md.

    active  (sample, flip, x, y) bool                 cells, compact
    value   (sample, flip, slot, channel) float16     cells, compact: features of the active cells, x before y
    bev     (sample, flip, channel, x, y) float16     dense

x and y grow with the LIDAR_TOP frame's. `flip` follows the attribute `flips`: which coordinates of the points were
negated before the teacher saw them. `count` says how many cells of a map are kept. What else is in the store, and how
parts are written and read: storage/part_store.py.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numcodecs import Blosc, Zstd
from zarr.codecs import BloscCodec, ZstdCodec

from storage.damage import Damaged
from storage.part_store import PartStore, StoreLayout, read_attributes
from storage.shards import Compressor, ShardedArray, ShardedLayout

FORMAT = 3
FRAME = "LIDAR_TOP of the key frame"
SLOTS = 2048  # a chunk of `value`; few, since zarr-python takes 0.2 ms for each
MANTISSA_BITS = {"cells": 10, "compact": 4, "dense": 10}  # of float16's 10
INFINITY = 0x7C00  # float16's, as bits
NUSCENES_TRAIN, NUSCENES_TRAINVAL = 28_130, 34_149  # samples

LZ4 = Compressor(
    BloscCodec(typesize=2, cname="lz4hc", clevel=5, shuffle="noshuffle"), Blosc("lz4hc", 5, Blosc.NOSHUFFLE)
)
ZSTD = Compressor(ZstdCodec(level=1), Zstd(1), joins=True)

Encoding = Literal["cells", "compact", "dense"]
Flip = Literal["none", "x", "y", "xy"]  # the coordinates of the points that are negated
FLIPS: tuple[Flip, ...] = ("none", "x", "y", "xy")


@dataclass(frozen=True)
class BevAttributes:
    """What holds for the whole store, as group attributes."""

    point_range: tuple[float, ...]  # x, y, z minimum, then maximum (m)
    cell_size: tuple[float, float]  # m along x and y
    part_size: int
    encoding: Encoding = "cells"
    flips: tuple[Flip, ...] = ("none",)
    frame: str = FRAME


class Cells(NamedTuple):
    """The active cells of one map; all others are zero."""

    index: np.ndarray  # type: ignore[assignment]  # (n,) int32: x * Y + y, ascending; hides tuple.index
    values: np.ndarray  # (n, C) float16


class BevWriter:
    """The store while it is made. Opening it again goes on from the parts that are done."""

    def __init__(self, path: Path, tokens: Iterable[str], shape_CXY: tuple[int, int, int], attributes: BevAttributes):
        """A store there of other samples, shape or settings is moved aside (`PartStore.open_or_create`)."""
        self.path, self.shape, self.attributes = Path(path), shape_CXY, attributes
        self.store = PartStore.open_or_create(path, _layout(self.shape, attributes), tokens, attributes.part_size)
        self.parts, self.part_size, self.flips = self.store.parts, self.store.part_size, attributes.flips

    def samples(self, part: int) -> range:
        """The samples of a part."""
        return self.store.samples(part)

    def write(self, part: int, maps: Iterable[np.ndarray], check: Callable[[], None] = lambda: None) -> None:
        """Write and flag a whole part: maps (C, X, Y) of each sample, and within it of each flip, one at a time.

        check: see `PartStore.writing`. Raises ValueError for too many or few maps, another shape, or values that
        float16 cannot hold.
        """
        places = list(product(range(len(self.samples(part))), range(len(self.flips))))
        coming = iter(maps)
        with self.store.writing(part, check) as writer:
            for written, (row, flip) in enumerate(places):
                if (bev := next(coming, None)) is None:
                    raise ValueError(f"part {part} has {len(places)} maps, not {written}")
                writer.put(row, flip, *self._encoded(bev, part))
            if next(coming, None) is not None:
                raise ValueError(f"part {part} has {len(places)} maps, not more")

    def _encoded(self, bev: np.ndarray, part: int) -> tuple[int, dict[str, np.ndarray]]:
        """How many cells of a map are kept, and what is stored of it, by array."""
        if bev.shape != self.shape:
            raise ValueError(f"part {part}: a map of shape {bev.shape}, not {self.shape}")
        half = to_half(bev, MANTISSA_BITS[self.attributes.encoding])
        if half is None:
            raise ValueError(f"part {part}: features that are not finite, or beyond the range of float16")
        if self.attributes.encoding == "dense":
            return half[0].size, {"bev": half}
        active = (half.view(np.uint16) << 1).any(0)  # without the sign: -0 is zero
        return int(active.sum()), {"active": active, "value": half.transpose(1, 2, 0)[active]}


class BevReader:
    """`reader[sample]` is the map (C, X, Y) float16 of a sample. Safe to hand to forked or spawned workers."""

    def __init__(self, path: Path):
        """Raises FileNotFoundError where there is no store, ValueError for one of another format, Damaged."""
        self.path = Path(path)
        try:
            version = read_attributes(self.path).get("format")
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: there is no BEV cache; `geomim teacher` makes it") from None
        if version != FORMAT:
            raise ValueError(f"{path}: format {version}, not {FORMAT}; run `geomim teacher` again")

    def __getstate__(self) -> dict:
        return {"path": self.path}

    @cached_property
    def store(self) -> PartStore:
        return PartStore(self.path, _layout(self.shape, self.attributes))

    @cached_property
    def arrays(self) -> dict[str, ShardedArray]:
        """What holds the maps: `bev`, or `active` and `value`."""
        return self.store.arrays

    @cached_property
    def attributes(self) -> BevAttributes:
        stored = read_attributes(self.path)
        try:
            return BevAttributes(
                point_range=tuple(stored["range"]),
                cell_size=tuple(stored["cell_size"]),
                part_size=stored["part_size"],
                encoding=stored["encoding"],
                flips=tuple(stored["flips"]),
                frame=stored["frame"],
            )
        except KeyError as error:
            raise Damaged(self.path / "zarr.json", f"lacks {error}") from error

    @property
    def tokens(self) -> list[str]:
        """Sample tokens, in the order of the store."""
        return self.store.tokens

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """(C, X, Y) of a map."""
        channels, x, y = read_attributes(self.path)["shape"]
        return channels, x, y

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, sample: int) -> np.ndarray:
        """`dense(sample)`."""
        return self.dense(sample)

    def dense(self, sample: int, flip: Flip = "none") -> np.ndarray:
        """The map (C, X, Y). That of active cells lies channels-last in memory, as they do: copying it to another order
        takes longer than all the rest. Errors as of `cells`."""
        if self.attributes.encoding == "dense":
            return self.store.read("bev", sample, self._number(flip))
        channels, *xy = self.shape
        index, values = self.cells(sample, flip)
        bev = np.zeros((xy[0] * xy[1], channels), np.float16)
        bev[index] = values
        return bev.reshape(*xy, channels).transpose(2, 0, 1)

    def cells(self, sample: int, flip: Flip = "none") -> Cells:
        """The active cells of a map; all of them, if the encoding is `dense`.

        Raises KeyError where the flip is not cached, and all that `PartStore.read` does.
        """
        number = self._number(flip)
        if self.attributes.encoding == "dense":
            values = self.store.read("bev", sample, number).reshape(self.shape[0], -1).T
            return Cells(np.arange(len(values), dtype=np.int32), values)
        index = np.flatnonzero(self.store.read("active", sample, number)).astype(np.int32)
        return Cells(index, self.store.read("value", sample, number)[: len(index)])

    def _number(self, flip: Flip) -> int:
        flips = self.attributes.flips
        if flip not in flips:
            raise KeyError(f"{self.path}: holds no maps flipped by '{flip}', only {', '.join(flips)}")
        return flips.index(flip)


def to_half(bev: np.ndarray, mantissa_bits: int) -> np.ndarray | None:
    """As float16 with `mantissa_bits` of the 10, ties to even; None if anything in it is not finite (then).

    The relative error is at most 2^-(mantissa_bits + 1) above float16's own. What is dropped becomes zeros, which
    compress; the recipe to read them stays the same.
    """
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(bev, np.float16)
    bits = half.view(np.uint16)
    dropped = 10 - mantissa_bits
    to_next = 1 << dropped >> 1  # half a step: from there on, rounding goes up
    if (bits & 0x7FFF).max(initial=0) >= INFINITY - to_next:
        return None
    if dropped:
        odd = (bits >> dropped) & 1
        rounded = (bits + (odd + (to_next - 1))) >> dropped << dropped  # a carry rightly raises the exponent
        return rounded.view(np.float16)
    return half


def size_of(path: Path) -> dict[str, Any]:
    """What the finished store at `path` holds, and how big nuScenes would be (GB, 10^9 bytes) at its bytes a sample.

    `active_share` of the cells is the mean over all samples, of the points as they are.
    """
    reader = BevReader(path)
    _, x, y = reader.shape
    parts = range(reader.store.parts.count)
    stored = sum(array.size(part) for array in reader.arrays.values() for part in parts)
    each = stored / len(reader)
    return {
        "encoding": reader.attributes.encoding,
        "flips": list(reader.attributes.flips),
        "active_share": round(float(reader.store.counts()[:, 0].mean()) / (x * y), 4),
        "bytes_per_sample": round(each),
        "nuscenes_train_gb": round(each * NUSCENES_TRAIN / 1e9, 1),
        "nuscenes_trainval_gb": round(each * NUSCENES_TRAINVAL / 1e9, 1),
    }


def _layout(shape_CXY: tuple[int, int, int], attributes: BevAttributes) -> StoreLayout:
    channels, x, y = shape_CXY
    if attributes.encoding == "dense":
        arrays = [ShardedLayout("bev", shape_CXY, shape_CXY, "float16", ("channel", "x", "y"), ZSTD)]
    else:
        cells, values = (x * y, channels), (min(SLOTS, x * y), channels)
        codec = LZ4 if attributes.encoding == "cells" else ZSTD
        arrays = [
            ShardedLayout("active", (x, y), (x, y), "bool", ("x", "y"), LZ4),
            ShardedLayout("value", cells, values, "float16", ("slot", "channel"), codec),
        ]
    stored = {
        "range": attributes.point_range,
        "cell_size": attributes.cell_size,
        "encoding": attributes.encoding,
        "flips": attributes.flips,
        "frame": attributes.frame,
        "shape": list(shape_CXY),
    }
    return StoreLayout(FORMAT, tuple(arrays), stored, "flip", "flips")
