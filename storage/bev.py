"""`bev.zarr`: the teacher's BEV features of every sample, written in parts, read one sample at a time.

Encodings `cells` (lossless) and `compact` (mantissas rounded to 4 bits) keep the active cells alone, those with any
feature that is not zero; `dense` keeps whole maps, for teachers that leave no cell empty. Why: docs/bev-cache.md.

    active  (sample, flip, x, y) bool                 cells, compact
    value   (sample, flip, slot, channel) float16     cells, compact: features of the active cells, x before y
    bev     (sample, flip, channel, x, y) float16     dense
    token   (sample) str, in the order of the index
    done    (part) uint8

x and y grow with the LIDAR_TOP frame's. `flip` follows the attribute `flips`: which coordinates of the points were
negated before the teacher saw them. A part is samples `part * part_size` onwards, `part_size` of them, and one shard an
array; it is written whole by one writer, then flagged, and several processes may write different parts at once. Zarr
reads a chunk that is not there as zeros: the reader here raises.
"""

import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import zarr
from numcodecs import Blosc, Zstd
from zarr.codecs import BloscCodec, ZstdCodec

from storage.parts import Parts
from storage.shards import Compressor, ShardedArray

FORMAT = 2
FRAME = "LIDAR_TOP of the key frame"
AGAIN = "run `geomim run --force teacher`"
SLOTS = 2048  # a chunk of `value`; few, since zarr-python takes 0.2 ms for each
MANTISSA_BITS = {"cells": 10, "compact": 4, "dense": 10}  # of float16's 10
INFINITY = 0x7C00  # float16's, as bits
NUSCENES_TRAIN, NUSCENES_TRAINVAL = 28_130, 34_149  # samples

LZ4 = Compressor(
    BloscCodec(typesize=2, cname="lz4hc", clevel=5, shuffle="noshuffle"), Blosc("lz4hc", 5, Blosc.NOSHUFFLE)
)
ZSTD = Compressor(ZstdCodec(level=1), Zstd(1))

Encoding = Literal["cells", "compact", "dense"]
Flip = Literal["none", "x", "y", "xy"]  # the coordinates of the points that are negated
FLIPS: tuple[Flip, ...] = ("none", "x", "y", "xy")


@dataclass(frozen=True)
class BevAttributes:
    """What holds for the whole store, as group attributes."""

    range: tuple[float, ...]  # x, y, z minimum, then maximum (m)
    cell_size: tuple[float, float]  # m along x and y
    part_size: int
    encoding: Encoding = "cells"
    flips: tuple[Flip, ...] = ("none",)
    frame: str = FRAME


def array_names(encoding: Encoding) -> tuple[str, ...]:
    """The arrays that hold the maps."""
    return ("bev",) if encoding == "dense" else ("active", "value")


class Cells(NamedTuple):
    """The active cells of one map; all others are zero."""

    index: np.ndarray  # (n,) int32: x * Y + y, ascending
    values: np.ndarray  # (n, C) float16


class BevWriter:
    """The store while it is made. Opening it again goes on from the parts that are done."""

    def __init__(self, path: Path, tokens: np.ndarray, shape_CXY: tuple[int, int, int], attributes: BevAttributes):
        """Raises ValueError if the store there is of another shape, other samples or settings."""
        self.path, self.shape, self.attributes = Path(path), tuple(shape_CXY), attributes
        self.part_size, self.flips, self._samples = attributes.part_size, attributes.flips, len(tokens)
        if not self.path.exists():
            _create(self.path, tokens, self.shape, attributes)
        reader = BevReader(self.path)
        if reader.attributes != attributes:
            raise ValueError(f"{path}: was begun with other settings; {AGAIN}")
        if reader.shape != self.shape or reader.tokens != list(tokens):
            raise ValueError(f"{path}: holds other samples or maps of another shape; {AGAIN}")
        self._arrays = reader.arrays
        self.parts = Parts(zarr.open_group(str(path), mode="r+", use_consolidated=False))

    def samples(self, part: int) -> range:
        """The samples of a part."""
        return range(part * self.part_size, min((part + 1) * self.part_size, self._samples))

    def write(self, part: int, maps: Iterable[np.ndarray]) -> None:
        """Write and flag a whole part: maps (C, X, Y) of each sample, and within it of each flip, one at a time.

        Raises ValueError for too many or few of them, another shape, or values that float16 cannot hold.
        """
        places = list(product(range(len(self.samples(part))), range(len(self.flips))))
        coming = iter(maps)
        with ExitStack() as stack:
            shards = {name: stack.enter_context(array.writing(part)) for name, array in self._arrays.items()}
            for made, (row, flip) in enumerate(places):
                if (bev := next(coming, None)) is None:
                    raise ValueError(f"part {part} has {len(places)} maps, not {made}")
                for name, chunks in self._chunks(bev, part).items():
                    for i, chunk in enumerate(chunks):
                        shards[name].append(row, flip, i, chunk)
            if next(coming, None) is not None:
                raise ValueError(f"part {part} has {len(places)} maps, not more")
        self.parts.mark(part)

    def _chunks(self, bev: np.ndarray, part: int) -> dict[str, Sequence[np.ndarray]]:
        """What is stored of a map, by array."""
        if bev.shape != self.shape:
            raise ValueError(f"part {part}: a map of shape {bev.shape}, not {self.shape}")
        half = to_half(bev, MANTISSA_BITS[self.attributes.encoding])
        if half is None:
            raise ValueError(f"part {part}: features that are not finite, or beyond the range of float16")
        if self.attributes.encoding == "dense":
            return {"bev": [half]}
        active = (half.view(np.uint16) << 1).any(0)  # without the sign: -0 is zero
        count, slots = int(active.sum()), self._arrays["value"].chunk[0]
        values = np.zeros((-(-count // slots) * slots, len(half)), np.float16)
        values[:count] = half.transpose(1, 2, 0)[active]
        return {"active": [active], "value": values.reshape(-1, slots, len(half))}


class BevReader:
    """`reader[sample]` is the map (C, X, Y) float16 of a sample. Safe to hand to forked or spawned workers."""

    def __init__(self, path: Path):
        """Raises FileNotFoundError where there is no store, ValueError for one of another format."""
        self.path = Path(path)
        if not (self.path / "zarr.json").is_file():
            raise FileNotFoundError(f"{path}: there is no BEV cache; `geomim teacher` makes it")
        if self._group.attrs.get("format") != FORMAT:
            raise ValueError(f"{path}: format {self._group.attrs.get('format')}, not {FORMAT}; {AGAIN}")

    def __getstate__(self) -> dict:
        return {"path": self.path}

    @cached_property
    def _group(self) -> zarr.Group:
        return zarr.open_group(str(self.path), mode="r", use_consolidated=False)

    @cached_property
    def arrays(self) -> dict[str, ShardedArray]:
        """What holds the maps: `bev`, or `active` and `value`."""
        encoding = self.attributes.encoding
        return {n: ShardedArray(self._group[n], _compressor(n, encoding)) for n in array_names(encoding)}

    @cached_property
    def _done(self) -> np.ndarray:
        return self._group["done"][:]

    @cached_property
    def attributes(self) -> BevAttributes:
        stored = self._group.attrs
        names = BevAttributes.__dataclass_fields__
        return BevAttributes(**{n: tuple(stored[n]) if isinstance(stored[n], list) else stored[n] for n in names})

    @cached_property
    def tokens(self) -> list[str]:
        """Sample tokens, in the order of the store."""
        return list(self._group["token"][:])

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """(C, X, Y) of a map."""
        if self.attributes.encoding == "dense":
            return self._group["bev"].shape[2:]
        return self._group["value"].shape[3], *self._group["active"].shape[2:]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, sample: int) -> np.ndarray:
        """`dense(sample)`."""
        return self.dense(sample)

    def dense(self, sample: int, flip: Flip = "none") -> np.ndarray:
        """The map (C, X, Y). That of active cells lies channels-last in memory, as they do: copying it to another order
        takes longer than all the rest. Errors as of `cells`."""
        if self.attributes.encoding == "dense":
            return self._read("bev", sample, flip)
        channels, *xy = self.shape
        index, values = self.cells(sample, flip)
        bev = np.zeros((xy[0] * xy[1], channels), np.float16)
        bev[index] = values
        return bev.reshape(*xy, channels).transpose(2, 0, 1)

    def cells(self, sample: int, flip: Flip = "none") -> Cells:
        """The active cells of a map; all of them, if the encoding is `dense`.

        Raises IndexError beyond the end, KeyError where the sample's part is not written or the flip is not cached,
        OSError where the part's files are gone or damaged.
        """
        if self.attributes.encoding == "dense":
            values = self._read("bev", sample, flip).reshape(self.shape[0], -1).T
            return Cells(np.arange(len(values), dtype=np.int32), values)
        index = np.flatnonzero(self._read("active", sample, flip)).astype(np.int32)
        if len(index) == 0:
            return Cells(index, np.zeros((0, self.shape[0]), np.float16))
        chunks = -(-len(index) // self.arrays["value"].chunk[0])
        return Cells(index, self._read("value", sample, flip, chunks)[: len(index)])

    def _read(self, name: str, sample: int, flip: Flip, chunks: int = 1) -> np.ndarray:
        flips = self.attributes.flips
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        if flip not in flips:
            raise KeyError(f"{self.path}: holds no maps flipped by '{flip}', only {', '.join(flips)}")
        part = sample // self.attributes.part_size
        if not self._done[part]:
            raise KeyError(f"{self.path}: part {part} (sample {sample}) is not written; run `geomim teacher` again")
        try:
            return self.arrays[name].read(sample, flips.index(flip), chunks)
        except OSError as error:
            raise OSError(f"{error}, but part {part} is flagged as done; {AGAIN}") from error


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
        bits = (bits + (odd + (to_next - 1))) >> dropped << dropped  # a carry rightly raises the exponent
    return bits.view(np.float16)


def size_of(path: Path, looked_at: int = 64) -> dict[str, Any]:
    """What the finished store at `path` holds, and how big nuScenes would be (GB, 10^9 bytes) at its bytes a sample.

    `active_share` of the cells is the mean over at most `looked_at` samples, spread evenly.
    """
    reader = BevReader(path)
    spread = np.unique(np.linspace(0, len(reader) - 1, min(looked_at, len(reader))).astype(int))
    _, x, y = reader.shape
    active = [(reader.cells(s).values != 0).any(1).sum() / (x * y) for s in spread.tolist()]
    parts = range(-(-len(reader) // reader.attributes.part_size))
    stored = sum(array.file(part).stat().st_size for array in reader.arrays.values() for part in parts)
    each = stored / len(reader)
    return {
        "encoding": reader.attributes.encoding,
        "flips": list(reader.attributes.flips),
        "active_share": round(float(np.mean(active)), 4),
        "bytes_per_sample": round(each),
        "nuscenes_train_gb": round(each * NUSCENES_TRAIN / 1e9, 1),
        "nuscenes_trainval_gb": round(each * NUSCENES_TRAINVAL / 1e9, 1),
    }


def _compressor(name: str, encoding: Encoding) -> Compressor:
    return LZ4 if name == "active" or encoding == "cells" else ZSTD


def _create(path: Path, tokens: np.ndarray, shape_CXY: tuple[int, int, int], attributes: BevAttributes) -> None:
    """Make the empty store elsewhere and move it here: it is there with all it needs, or not at all.

    Of several processes that do so at once, the first wins; the others find its store.
    """
    making = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        group = zarr.open_group(str(making), mode="w")
        (channels, x, y), leading = shape_CXY, (len(tokens), len(attributes.flips))
        slots = min(SLOTS, x * y)
        arrays = {
            "active": ((x, y), (x, y), "bool", ("x", "y")),
            "value": ((x * y, channels), (slots, channels), "float16", ("slot", "channel")),
            "bev": (shape_CXY, shape_CXY, "float16", ("channel", "x", "y")),
        }
        for name in array_names(attributes.encoding):
            shape, chunk, dtype, dimensions = arrays[name]
            ShardedArray.create(
                group,
                name,
                (*leading, *shape),
                chunk,
                dtype,
                _compressor(name, attributes.encoding),
                attributes.part_size,
                ("sample", "flip", *dimensions),
            )
        token = group.create_array(
            "token", shape=(len(tokens),), chunks=(max(1, len(tokens)),), dtype=str, dimension_names=("sample",)
        )
        token[:] = np.asarray(tokens, object)
        Parts(group, -(-len(tokens) // attributes.part_size))
        group.attrs.update({"format": FORMAT, **asdict(attributes)})
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(making, path)
        except OSError:
            if not path.exists():
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
