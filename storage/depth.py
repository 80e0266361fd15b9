"""`depth.zarr`: LiDAR points as the cameras see them, in flat arrays that are written in order, a part at a time.

Row r is one point in one camera: `u`, `v` (px of the full image, sub-pixel, float32), `depth` (m along the optical
axis, float32) and `sweep` (uint8, 0 = the key sweep, k = the k-th sweep before it). Camera c of sample s has the rows
`offsets[s, c]:offsets[s, c + 1]`; the cameras' order is the attribute `cameras`, the samples' that of the index.

One writer appends. A part (a run of whole samples) is flagged done after its rows and offsets are on disk; whatever an
interrupted run wrote past the last done part is overwritten with the same bytes.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from storage.parts import Parts

FORMAT = 1
CHUNK = 1 << 17  # rows read at a time
SHARD = 1 << 21  # rows a file
AGAIN = "run `geomim run --force depth`"
# A chunk that is not there reads as its fill value: one that no point can have, so that the loss is seen.
ARRAYS = {"u": ("float32", np.nan), "v": ("float32", np.nan), "depth": ("float32", np.nan), "sweep": ("uint8", 255)}


@dataclass(frozen=True)
class SamplePoints:
    """The points of one sample in all its cameras."""

    u: np.ndarray  # (n,) float32 px
    v: np.ndarray  # (n,) float32 px
    depth: np.ndarray  # (n,) float32 m
    sweep: np.ndarray  # (n,) uint8
    offsets: np.ndarray  # (cameras + 1,) int64, from 0

    def camera(self, camera: int, sweeps: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """u, v, depth of one camera, of the key sweep and up to `sweeps` before it (None: all there are)."""
        rows = slice(int(self.offsets[camera]), int(self.offsets[camera + 1]))
        u, v, depth, sweep = self.u[rows], self.v[rows], self.depth[rows], self.sweep[rows]
        if sweeps is None:
            return u, v, depth
        kept = sweep <= sweeps
        return u[kept], v[kept], depth[kept]


class DepthWriter:
    """Writes a store part by part, from the first that is not done."""

    def __init__(self, path: Path, samples: int, cameras: Sequence[str], sweeps: int, part_samples: int):
        """Create the store, or open an unfinished one. Raises ValueError where it is another one than described."""
        attributes = {"format": FORMAT, "cameras": list(cameras), "sweeps": sweeps, "part_samples": part_samples}
        self.samples, self.part_samples = samples, part_samples
        count = -(-samples // part_samples)
        if not path.exists():
            _create(path, samples, attributes, count)
        group = zarr.open_group(str(path), mode="r+", use_consolidated=False)
        if dict(group.attrs) != attributes or group["offsets"].shape[0] != samples:
            raise ValueError(f"{path}: was begun with other settings; remove it and run again")
        self.parts = Parts(group, count)
        self._offsets = group["offsets"]
        self._arrays = {name: group[name] for name in ARRAYS}
        self._next = min(self.parts.pending(), default=count)

    @property
    def next(self) -> int:
        """The part to write next; `parts.count` when all are done."""
        return self._next

    def samples_of(self, part: int) -> range:
        """The samples of a part."""
        return range(part * self.part_samples, min(self.samples, (part + 1) * self.part_samples))

    def write(self, part: int, points: Sequence[SamplePoints]) -> None:
        """Append a part: the points of each of its samples. Raises ValueError for a part that is not the next."""
        rows = self.samples_of(part)
        if part != self._next or len(points) != len(rows):
            raise ValueError(f"part {part} with {len(points)} samples: part {self._next} comes next")
        start = int(self._offsets[rows.start - 1, -1]) if part else 0
        edges = start + np.cumsum([0] + [int(p.offsets[-1]) for p in points])
        for name, array in self._arrays.items():
            if array.shape[0] < start:
                raise ValueError(f"{array.store_path}: has {array.shape[0]} rows where {start} are done")
            array.resize((int(edges[-1]),))
            if edges[-1] > start:
                array[start:] = np.concatenate([getattr(p, name) for p in points])
        self._offsets[rows.start : rows.stop] = np.stack(
            [edge + p.offsets for edge, p in zip(edges[:-1], points, strict=True)]
        )
        self.parts.mark(part)
        self._next += 1


class DepthReader:
    """A finished store, to read from. Safe to use from several threads.

    Raises FileNotFoundError where there is none, ValueError for another format, an unfinished or a damaged one.
    """

    def __init__(self, path: Path):
        if not (path / "zarr.json").is_file():
            raise FileNotFoundError(f"{path}: there is no depth store; `geomim depth` makes it")
        group = zarr.open_group(str(path), mode="r", use_consolidated=False)
        if group.attrs.get("format") != FORMAT:
            raise ValueError(f"{path}: format {group.attrs.get('format')}, not {FORMAT}; {AGAIN}")
        parts = Parts(group)
        if pending := parts.pending():
            done = parts.count - len(pending)
            raise ValueError(f"{path}: {done} of {parts.count} parts are done; `geomim depth` goes on")
        self.path = path
        self.cameras: tuple[str, ...] = tuple(group.attrs["cameras"])
        self.sweeps: int = group.attrs["sweeps"]
        self.offsets: np.ndarray = group["offsets"][...]  # (samples, cameras + 1)
        self._arrays = {name: group[name] for name in ARRAYS}
        if (self.offsets < 0).any() or (self.offsets[1:, 0] != self.offsets[:-1, -1]).any():
            raise ValueError(f"{path}/offsets: is damaged or lacks a file; {AGAIN}")

    def __len__(self) -> int:
        return len(self.offsets)

    def read(self, sample: int) -> SamplePoints:
        """All points of a sample. Raises ValueError for a missing or damaged chunk, IndexError for no such sample."""
        if not 0 <= sample < len(self):
            raise IndexError(f"{self.path}: sample {sample} of {len(self)}")
        offsets = self.offsets[sample]
        rows = slice(int(offsets[0]), int(offsets[-1]))
        values = {name: self._rows(name, rows) for name in ARRAYS}
        return SamplePoints(**values, offsets=offsets - offsets[0])

    def _rows(self, name: str, rows: slice) -> np.ndarray:
        array, (_, fill) = self._arrays[name], ARRAYS[name]
        if array.shape[0] < rows.stop:
            raise ValueError(f"{self.path}/{name}: has {array.shape[0]} rows, not {rows.stop}; {AGAIN}")
        if rows.start == rows.stop:
            return np.zeros(0, array.dtype)
        try:
            values = array[rows]
        except Exception as error:  # each codec has its own words for bytes that are not its own
            damage = f"rows {rows.start} to {rows.stop} are damaged ({error})"
            raise ValueError(f"{self.path}/{name}: {damage}; {AGAIN}") from error
        if (np.isnan(values) if values.dtype.kind == "f" else values == fill).any():
            raise ValueError(f"{self.path}/{name}: a file with rows {rows.start} to {rows.stop} is missing; {AGAIN}")
        return values


def _create(path: Path, samples: int, attributes: dict, parts: int) -> None:
    """Make the empty store elsewhere and move it here: a store is there with all its arrays, or not at all."""
    making = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(making, ignore_errors=True)
    group = zarr.open_group(str(making), mode="w")
    for name, (dtype, fill) in ARRAYS.items():
        group.create_array(
            name,
            shape=(0,),
            chunks=(CHUNK,),
            shards=(SHARD,),
            dtype=dtype,
            fill_value=fill,
            compressors=ZstdCodec(level=1, checksum=True),
            dimension_names=("point",),
        )
    group.create_array(
        "offsets",
        shape=(samples, len(attributes["cameras"]) + 1),
        chunks=(attributes["part_samples"], len(attributes["cameras"]) + 1),
        dtype="int64",
        fill_value=-1,
        compressors=ZstdCodec(level=3, checksum=True),
        dimension_names=("sample", "camera_edge"),
    )
    Parts(group, parts)
    group.attrs.update(attributes)
    os.replace(making, path)
