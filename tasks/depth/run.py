"""The depth stage: every sample's LiDAR points in its cameras -> `depth.zarr`.

Parts are computed ahead by worker processes; this process alone writes.
"""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.cores import SharingContext, available_cores
from common.errors import DataError
from common.files import patiently
from common.progress import progress, say
from dataroot.points import need_lidar, read_cloud
from models.geometry import inverse
from storage.artifact import Artifact
from storage.depth import DepthReader, DepthWriter, SamplePoints
from storage.index import Index
from tasks.depth.config import DepthConfig
from tasks.depth.picture import save_picture
from tasks.depth.project import Rig, project_sample
from tasks.engine.stage import Inputs

CLOUDS_PER_WORKER = 256  # fewer than this and a process costs more to start than it saves


@dataclass(frozen=True)
class Job:
    """One sample's work, small enough to send to another process."""

    clouds: list[Path]  # the key sweep, then the previous ones
    columns: int  # of their files
    cloud_to_camera: np.ndarray  # (K, C, 4, 4)
    rig: Rig
    min_depth: float
    margin: float


def run(config: DepthConfig, inputs: Inputs, artifact: Artifact) -> dict[str, Any]:
    """Write `depth.zarr`, and `depth.png` of one sample. Raises DataError where a cloud is gone or broken."""
    index = Index.open(inputs["ingest"].path / "index.zarr")
    need_lidar(index, "depth")
    path = artifact.path / "depth.zarr"
    writer = DepthWriter(
        path, index.token, index.cameras, config.sweeps, config.part, most_points(index, inputs.dataroot, config)
    )
    if writer.store.aside is not None:
        say(f"depth: {path} is begun again; what was there is kept as {writer.store.aside.name}")
    for damage in writer.store.mend():
        say(f"depth: {damage.path}: {damage.what}; its part is made again")
    parts = writer.parts.pending()
    work = (sample_jobs(index, inputs.dataroot, config, writer.samples(part)) for part in parts)
    done = len(index) - sum(len(writer.samples(part)) for part in parts)
    points = _in_samples(compute(work, _workers(config, len(parts))), writer, parts)
    for _ in progress(points, "depth", len(index), "samples", done):
        pass
    store = DepthReader(path)
    counts = store.counts().sum(1)
    sample = int(np.argmax(counts))
    save_picture(artifact.path / "depth.png", inputs.dataroot, index, store, sample)
    return {
        "samples": len(store),
        "points_in_images": int(counts.sum()),  # one that two cameras see counts twice
        "points_in_images_per_sample": round(float(counts.mean()), 1),
        "samples_without_points": int((counts == 0).sum()),
        "picture": {"sample": index.token[sample], "file": "depth.png"},
    }


def most_points(index: Index, dataroot: Path, config: DepthConfig) -> int:
    """Of all clouds of any one sample: no camera can see more. Raises DataError where one cannot be looked at."""
    most = 0
    for s in range(len(index)):
        paths = (index.lidar_path[s], *index.sweep_path[s, : min(config.sweeps, int(index.sweep_count[s]))])
        most = max(most, sum(_size(dataroot / str(path)) for path in paths) // (4 * index.lidar_columns))
    return most


def _size(path: Path) -> int:
    try:
        return patiently(path, lambda: path.stat().st_size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); get the file again and rerun") from None


def sample_jobs(index: Index, dataroot: Path, config: DepthConfig, samples: range) -> list[Job]:
    """The work of some samples."""
    jobs = []
    for s in samples:
        count = min(config.sweeps, int(index.sweep_count[s]))
        lidar_to_camera = inverse(index.camera_to_global(s)) @ index.lidar_to_global(s)  # (C, 4, 4)
        clouds_to_lidar = np.concatenate([np.eye(4)[None], index.sweep_to_lidar[s, :count]])  # (K, 4, 4)
        jobs.append(
            Job(
                clouds=[dataroot / path for path in (index.lidar_path[s], *index.sweep_path[s, :count])],
                columns=index.lidar_columns,
                cloud_to_camera=lidar_to_camera[None] @ clouds_to_lidar[:, None],
                rig=Rig(index.intrinsics[s], index.image_size[s]),
                min_depth=config.min_depth,
                margin=config.margin,
            )
        )
    return jobs


def compute(work: Iterator[list[Job]], workers: int) -> Iterator[list[SamplePoints]]:
    """The parts' points in the order of the parts; with several workers, a few parts ahead."""
    if workers <= 1:
        yield from map(project_part, work)
        return
    # A worker ends when this process does, even by kill -9.
    with ProcessPoolExecutor(workers, mp_context=SharingContext(threads=1), initializer=_end_with_parent) as pool:
        ahead: deque = deque()
        try:
            for jobs in work:
                ahead.append(pool.submit(project_part, jobs))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def project_part(jobs: list[Job]) -> list[SamplePoints]:
    """The points of a part's samples."""
    return [
        project_sample(
            [read_cloud(path, j.columns) for path in j.clouds], j.cloud_to_camera, j.rig, j.min_depth, j.margin
        )
        for j in jobs
    ]


def _in_samples(parts_points: Iterator[list[SamplePoints]], writer: DepthWriter, parts: list[int]) -> Iterator[int]:
    """Write part after part, and yield every sample that is on disk."""
    for part, points in zip(parts, parts_points, strict=True):
        writer.write(part, points)
        yield from writer.samples(part)


def _workers(config: DepthConfig, parts: int) -> int:
    clouds = parts * config.part * (1 + config.sweeps)
    most = config.workers or available_cores()
    return max(1, min(most, parts, clouds // CLOUDS_PER_WORKER))


def _end_with_parent() -> None:
    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None  # this runs in a worker
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
