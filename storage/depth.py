"""`depth.zarr`: LiDAR points as the cameras see them, sample by sample and camera by camera, written in parts.

    u, v   (sample, camera, slot) float32  px of the full image, sub-pixel
    depth  (sample, camera, slot) float32  m along the optical axis
    sweep  (sample, camera, slot) uint8    0 = the key sweep, k = the k-th sweep before it

The first `count[sample, camera]` slots hold a point, those of a sweep in scan order; the cameras' order is the
attribute `cameras`, the samples' that of the index. What else is in the store, and how parts are written and read:
storage/part_store.py.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numcodecs import Zstd
from zarr.codecs import ZstdCodec

from storage.damage import Damaged
from storage.part_store import PartStore, StoreLayout, read_attributes
from storage.shards import Compressor, ShardedLayout

FORMAT = 2
SLOTS = 1 << 13  # points of a chunk
NAMES = ("u", "v", "depth", "sweep")
_ZSTD = Compressor(ZstdCodec(level=1), Zstd(1), joins=True)


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
        recent = sweep <= sweeps
        return u[recent], v[recent], depth[recent]


class CameraPoints(NamedTuple):
    """The points of one sample in one camera."""

    u: np.ndarray  # (n,) float32 px
    v: np.ndarray  # (n,) float32 px
    depth: np.ndarray  # (n,) float32 m
    sweep: np.ndarray  # (n,) uint8


class DepthWriter:
    """The store while it is made. Opening it again goes on from the parts that are done."""

    def __init__(
        self, path: Path, tokens: Iterable[str], cameras: Sequence[str], sweeps: int, part_samples: int, most: int
    ):
        """Create the store, or open an unfinished one (see `PartStore.open_or_create`).

        most: of the points of one sample; that many fit into a camera.
        """
        self.store = PartStore.open_or_create(path, _layout(cameras, sweeps, most), tokens, part_samples)
        self.parts, self.part_samples = self.store.parts, self.store.part_size
        self._most = most

    def samples(self, part: int) -> range:
        """The samples of a part."""
        return self.store.samples(part)

    def write(self, part: int, points: Sequence[SamplePoints], check: Callable[[], None] = lambda: None) -> None:
        """Write and flag a part: the points of each of its samples. Raises ValueError for another number of samples.

        check: see `PartStore.writing`.
        """
        if len(points) != len(self.samples(part)):
            raise ValueError(f"part {part} has {len(self.samples(part))} samples, not {len(points)}")
        with self.store.writing(part, check) as writer:
            for row, sample in enumerate(points):
                edges = sample.offsets.tolist()
                for camera, (first, end) in enumerate(pairwise(edges)):
                    if end - first > self._most:
                        raise ValueError(f"part {part}: {end - first} points in a camera, and {self._most} fit")
                    values = {name: getattr(sample, name)[first:end] for name in NAMES}
                    writer.put(row, camera, end - first, values)


class DepthReader:
    """A finished store, to read from. Safe to use from several threads.

    Raises FileNotFoundError where there is none, ValueError for another format or an unfinished one, Damaged.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.store = open_depth(self.path)
        self.cameras: tuple[str, ...] = tuple(self.store.layout.attributes["cameras"])
        self.sweeps: int = self.store.layout.attributes["sweeps"]
        if pending := self.store.parts.pending():
            for part in pending:
                if self.store.parts.file(part).exists():
                    raise Damaged(self.store.parts.file(part), "is damaged: it flags a part as done")
            count = self.store.parts.count
            raise ValueError(f"{path}: {count - len(pending)} of {count} parts are done; `geomim depth` goes on")

    def __len__(self) -> int:
        return len(self.store)

    def counts(self) -> np.ndarray:
        """(samples, cameras) int32, the points of every sample in each camera."""
        return self.store.counts()

    def read(self, sample: int) -> SamplePoints:
        """All points of a sample. Raises IndexError for no such sample, Damaged."""
        cameras = self.read_cameras(sample)
        u, v, depth, sweep = (np.concatenate(parts) for parts in zip(*cameras))
        return SamplePoints(u, v, depth, sweep, np.cumsum([0, *(len(camera.u) for camera in cameras)]))

    def read_cameras(self, sample: int) -> list[CameraPoints]:
        """The same camera by camera, as they lie in memory: nothing is copied. Raises as `read`."""
        counts = [self.store.count(sample, camera) for camera in range(len(self.cameras))]
        arrays = [self.store.read_all(name, sample) for name in NAMES]
        return [CameraPoints(*(values[:n] for values in of_camera)) for n, of_camera in zip(counts, zip(*arrays))]


def open_depth(path: Path) -> PartStore:
    """The store, finished or not. Raises FileNotFoundError, ValueError for another format, Damaged."""
    try:
        stored = read_attributes(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no depth store; `geomim depth` makes it") from None
    if stored.get("format") != FORMAT:
        raise ValueError(f"{path}: format {stored.get('format')}, not {FORMAT}; run `geomim depth` again")
    try:
        return PartStore(path, _layout(stored["cameras"], stored["sweeps"], stored["slots"]))
    except (KeyError, TypeError) as error:
        raise Damaged(path / "zarr.json", f"lacks or misstates {error}") from error


def _layout(cameras: Sequence[str], sweeps: int, most: int) -> StoreLayout:
    slots = max(1, -(-most // SLOTS)) * SLOTS
    arrays = tuple(
        ShardedLayout(name, (slots,), (SLOTS,), "uint8" if name == "sweep" else "float32", ("slot",), _ZSTD)
        for name in NAMES
    )
    attributes = {"cameras": list(cameras), "sweeps": sweeps, "slots": slots}
    return StoreLayout(FORMAT, arrays, attributes, "camera", "cameras")
