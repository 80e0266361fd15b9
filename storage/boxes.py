"""`boxes.zarr`: a detector's boxes of every sample, beside the maps of `bev.zarr` and in the same parts.

box    (sample, slot, value) float32: x, y, z (gravity centre), length, width, height (m), yaw (rad, from +x to +y),
       vx, vy (m/s), in the LIDAR_TOP frame of the key frame; best first
score  (sample, slot) float32
label  (sample, slot) int8, a class's number

The first `count[sample]` slots hold a box. What else is in the store, and how parts are written and read:
storage/part_store.py.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numcodecs import Zstd
from zarr.codecs import ZstdCodec

from storage.damage import set_aside
from storage.part_store import PartStore, StoreLayout, read_attributes
from storage.shards import Compressor, ShardedLayout

FORMAT = 2
SLOTS = 500  # what the official evaluation takes of a sample
_ZSTD = Compressor(ZstdCodec(level=3), Zstd(3))
LAYOUT = StoreLayout(
    FORMAT,
    (
        ShardedLayout("box", (SLOTS, 9), (SLOTS, 9), "float32", ("slot", "value"), _ZSTD),
        ShardedLayout("score", (SLOTS,), (SLOTS,), "float32", ("slot",), _ZSTD),
        ShardedLayout("label", (SLOTS,), (SLOTS,), "int8", ("slot",), _ZSTD),
    ),
    {"frame": "LIDAR_TOP of the key frame"},
)


class BoxStore:
    """The store, made where it is not there. Parts can be written by different processes."""

    def __init__(self, path: Path, tokens: Iterable[str], part_size: int):
        """part_size: that of the maps beside it. A store of another one is moved aside (`PartStore.open_or_create`)."""
        self.store = PartStore.open_or_create(path, LAYOUT, tokens, part_size)
        if self.store.part_size != part_size:
            aside = set_aside(path)
            self.store = PartStore.open_or_create(path, LAYOUT, tokens, part_size)
            self.store.aside = aside
        self.path, self.part_size, self.parts = Path(path), self.store.part_size, self.store.parts

    def write(
        self,
        part: int,
        boxes: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Write and flag a part: (box (n, 9), score (n,), label (n,)) of each of its samples, best first.

        check: see `PartStore.writing`.
        """
        with self.store.writing(part, check) as writer:
            for row, columns in enumerate(boxes):
                count = min(len(columns[0]), SLOTS)
                values = dict(zip(("box", "score", "label"), columns))
                writer.put(row, 0, count, {name: value[:SLOTS] for name, value in values.items()})

    def read(self, sample: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(box (n, 9), score (n,), label (n,)) of a sample. Raises KeyError where it is not written, Damaged."""
        count = self.store.count(sample)
        box, score, label = (self.store.read(name, sample)[:count] for name in ("box", "score", "label"))
        return box, score, label


def open_boxes(path: Path) -> PartStore:
    """The store, finished or not. Raises FileNotFoundError, ValueError for another format, Damaged."""
    if (version := read_attributes(path).get("format")) != FORMAT:
        raise ValueError(f"{path}: format {version}, not {FORMAT}; run `geomim teacher` again")
    return PartStore(path, LAYOUT)
