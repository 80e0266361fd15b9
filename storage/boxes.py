"""`boxes.zarr`: a detector's boxes of every sample, beside the maps of `bev.zarr` and in the same parts.

count  (sample) int32, how many of the slots hold a box
box    (sample, slot, value) float32: x, y, z (gravity centre), length, width, height (m), yaw (rad, from +x to +y),
       vx, vy (m/s), in the LIDAR_TOP frame of the key frame; best first
score  (sample, slot) float32
label  (sample, slot) int8, a class's number
done   (part) uint8
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from storage.parts import Parts

FORMAT = 1
SLOTS = 500  # what the official evaluation takes of a sample
ARRAYS = {
    "count": ("int32", -1, ("sample",), ()),
    "box": ("float32", np.nan, ("sample", "slot", "value"), (SLOTS, 9)),
    "score": ("float32", np.nan, ("sample", "slot"), (SLOTS,)),
    "label": ("int8", -1, ("sample", "slot"), (SLOTS,)),
}


class BoxStore:
    """The store, made where it is not there. Parts can be written by different processes."""

    def __init__(self, path: Path, samples: int, part_size: int):
        """Raises ValueError where the store there is of other samples or parts."""
        if not path.exists():
            _create(path, samples, part_size)
        group = zarr.open_group(str(path), mode="r+", use_consolidated=False)
        if group.attrs["part_size"] != part_size or group["count"].shape != (samples,):
            raise ValueError(f"{path}: was begun with other samples or parts; remove it and run again")
        self.path, self.part_size = path, part_size
        self.parts = Parts(group)
        self._arrays = {name: group[name] for name in ARRAYS}

    def write(self, part: int, boxes: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
        """Write and flag a part: (box (n, 9), score (n,), label (n,)) of each of its samples, best first."""
        rows = slice(part * self.part_size, part * self.part_size + len(boxes))
        values = {name: np.full((len(boxes), *tail), fill, dtype) for name, (dtype, fill, _, tail) in ARRAYS.items()}
        for i, (box, score, label) in enumerate(boxes):
            n = min(len(box), SLOTS)
            values["count"][i] = n
            values["box"][i, :n], values["score"][i, :n], values["label"][i, :n] = box[:n], score[:n], label[:n]
        for name, array in self._arrays.items():
            array[rows] = values[name]
        self.parts.mark(part)

    def read(self, sample: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(box (n, 9), score (n,), label (n,)) of a sample. Raises KeyError where it is not written."""
        count = int(self._arrays["count"][sample])
        if count < 0:
            raise KeyError(f"{self.path}: sample {sample} is not written; run `geomim teacher` again")
        box, score, label = (self._arrays[name][sample, :count] for name in ("box", "score", "label"))
        return box, score, label


def _create(path: Path, samples: int, part_size: int) -> None:
    making = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(making, ignore_errors=True)
    group = zarr.open_group(str(making), mode="w")
    group.attrs.update({"format": FORMAT, "part_size": part_size, "frame": "LIDAR_TOP of the key frame"})
    for name, (dtype, fill, dims, tail) in ARRAYS.items():
        group.create_array(
            name,
            shape=(samples, *tail),
            chunks=(part_size, *tail),
            dtype=dtype,
            fill_value=fill,
            compressors=ZstdCodec(level=3, checksum=True),
            dimension_names=dims,
        )
    Parts(group, -(-samples // part_size))
    os.replace(making, path)
