"""One process's share of the teacher: read, voxelise, infer and write the samples of a part."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from dataroot.points import load_points
from models.boxes import Boxes
from models.lidar.teacher import Teacher
from storage.bev import FLIPS, BevAttributes, BevWriter
from storage.boxes import BoxStore
from storage.index import Index
from tasks.teacher.config import TeacherConfig
from training.device import loader_threads

BEV = "bev.zarr"
BOXES = "boxes.zarr"


@dataclass
class Times:
    """Seconds of work, summed over processes. Reading and voxelising go on beside the rest, in a thread."""

    read: float = 0.0
    voxelise: float = 0.0
    infer: float = 0.0
    write: float = 0.0
    waited: float = 0.0  # of `infer` for the thread's work

    def __add__(self, other: "Times") -> "Times":
        return Times(*(a + b for a, b in zip(astuple(self), astuple(other))))

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Add the seconds inside to one of the fields."""
        start = time.perf_counter()
        yield
        setattr(self, what, getattr(self, what) + time.perf_counter() - start)


class PartWriter:
    """Writes parts into the stores of a folder. Several processes may, each parts of its own."""

    def __init__(
        self, config: TeacherConfig, teacher: Teacher, index: Index, dataroot: Path, folder: Path, device: torch.device
    ):
        self.config, self.teacher, self.index, self.dataroot, self.device = config, teacher, index, dataroot, device
        self.bev, self.boxes = open_stores(config, teacher, index, folder)
        self._ahead = loader_threads(1)

    def write(self, part: int, check: Callable[[], None]) -> Times:
        """Write a part; where the time went. check: see `PartStore.writing`. Raises UserError for features that don't
        fit."""
        times = Times()
        found: list[Boxes] = []
        start = time.perf_counter()
        with torch.inference_mode():
            self.bev.write(part, self._maps(part, times, found), check)
        if self.boxes:
            self.boxes.write(part, [_columns(boxes) for boxes in found], check)
        times.write = time.perf_counter() - start - times.infer - times.waited
        return times

    def _maps(self, part: int, times: Times, found: list[Boxes]) -> Iterator[np.ndarray]:
        """The map of each sample and flip; the boxes go to `found`. The next sample is prepared meanwhile."""
        samples = list(self.bev.samples(part))
        coming = self._ahead.submit(self._prepare, samples[0], times)
        for number, sample in enumerate(samples, 1):
            with times.of("waited"):
                prepared = coming.result()
            if number < len(samples):
                coming = self._ahead.submit(self._prepare, samples[number], times)
            for flip, of_flip in prepared.items():
                with times.of("infer"):
                    made, boxes = self.teacher.run(of_flip, self.device, self.boxes is not None and flip == "none")
                    bev = made.float().cpu().numpy()
                if boxes is not None:
                    found.append(boxes)
                self._check(bev, sample)
                yield bev

    def _prepare(self, sample: int, times: Times) -> dict[str, Any]:
        """What the network takes of a sample, of each flip; its points are read once."""
        with times.of("read"):
            points = load_points(self.index, self.dataroot, sample, self.config.lidar.sweeps)
        try:
            with times.of("voxelise"), torch.inference_mode():
                flips = self.bev.attributes.flips
                return {flip: self.teacher.prepare(torch.from_numpy(flipped(points, flip))) for flip in flips}
        except ValueError as error:
            raise UserError(f"teacher: sample {self.index.token[sample]}: {error}") from None

    def _check(self, bev: np.ndarray, sample: int) -> None:
        largest = float(np.abs(bev).max(initial=0))
        if not largest <= np.finfo(np.float16).max:
            raise UserError(
                f"teacher: the features of sample {self.index.token[sample]} reach {largest:g}, beyond what is "
                "cached (float16); the weights do not fit these points"
            )


def open_stores(
    config: TeacherConfig, teacher: Teacher, index: Index, folder: Path
) -> tuple[BevWriter, BoxStore | None]:
    """The stores of a teacher artifact, made where they are not there. Raises UserError where it can't say boxes."""
    if config.detections and not teacher.detects:
        raise UserError("teacher.detections: these weights have no detection head; set it to false")
    attributes = BevAttributes(
        teacher.bev_range,
        teacher.cell_size,
        config.part_size,
        encoding=config.encoding,
        flips=FLIPS if config.flips else FLIPS[:1],
    )
    bev = BevWriter(folder / BEV, index.token, teacher.bev_shape, attributes)
    return bev, BoxStore(folder / BOXES, index.token, bev.part_size) if config.detections else None


def flipped(points: np.ndarray, flip: str) -> np.ndarray:
    """Points with the axes named in `flip` ("none", "x", "y", "xy") mirrored."""
    points = points.copy() if flip != "none" else points
    for axis, name in enumerate("xy"):
        if name in flip:
            points[:, axis] *= -1
    return points


def _columns(boxes: Boxes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    box = np.column_stack([boxes.centers, boxes.sizes, boxes.yaws, boxes.velocities])
    return box, boxes.required_scores, boxes.labels
