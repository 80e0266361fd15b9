"""The depth stage: every sample's LiDAR points in its cameras -> `depth.zarr`.

Several processes may run it at once, each with parts of its own. A process's parts are computed ahead by its workers;
it alone writes them.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.cores import SharingContext, available_cores
from common.errors import DataError, UserError
from common.files import patiently
from common.processes import end_with_parent
from common.progress import counting, say
from dataroot.points import need_lidar, read_cloud
from models.geometry import inverse
from storage.artifact import Artifact
from storage.depth import DepthReader, DepthWriter, SamplePoints
from storage.index import Index
from storage.leases import PartLease, PartLeases
from storage.part_board import PartBoard
from tasks.depth.config import DepthConfig
from tasks.depth.picture import save_picture
from tasks.depth.project import Rig, project_sample
from tasks.engine.crew import done_here, write_shared
from tasks.engine.stage import Inputs

DEPTH = "depth.zarr"
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


def write(config: DepthConfig, inputs: Inputs, artifact: Artifact, leases: PartLeases) -> dict[str, Any]:
    """Write the parts of `depth.zarr`, with whoever else does; nothing to report. Raises DataError where a cloud is
    gone or broken."""
    index = Index.open(inputs["ingest"].path / "index.zarr")
    need_lidar(index, "depth")
    path = artifact.path / DEPTH
    writer = DepthWriter(
        path, index.token, index.cameras, config.sweeps, config.part, most_points(index, inputs.dataroot, config)
    )
    if writer.store.aside is not None:
        say(f"depth: {path} is begun again; what was there is kept as {writer.store.aside.name}")
    board = PartBoard([writer.store], leases)
    left = sum(len(writer.samples(part)) for part in board.left)
    workers = _workers(config, len(board.left))

    def jobs(part: int) -> list[Job]:
        return sample_jobs(index, inputs.dataroot, config, writer.samples(part))

    def keep(part: int, lease: PartLease, points: list[SamplePoints]) -> None:
        writer.write(part, points, lease.check)

    with _projecting(workers) as project, counting("depth", len(index), "samples", len(index) - left) as count:
        begun = write_shared(board, "depth", lambda part, lease: project(jobs(part)), max(1, 2 * workers), keep)
        for part, _ in begun:
            for _ in writer.samples(part):
                count()
    return {}


def run(config: DepthConfig, inputs: Inputs, artifact: Artifact) -> dict[str, Any]:
    """What the parts hold, when all are there; `depth.png` of one sample."""
    index = Index.open(inputs["ingest"].path / "index.zarr")
    store = DepthReader(artifact.path / DEPTH)
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


@contextmanager
def _projecting(workers: int) -> Iterator[Callable[[list[Job]], Future[list[SamplePoints]]]]:
    """`project_part` as something that is begun: in processes of its own where there are several."""
    if workers <= 1:
        yield lambda jobs: done_here(project_part, jobs)
        return
    # A worker ends when this process does, even by kill -9.
    with ProcessPoolExecutor(workers, mp_context=SharingContext(threads=1), initializer=end_with_parent) as pool:
        try:
            yield lambda jobs: pool.submit(project_part, jobs)
        except BrokenProcessPool:
            raise UserError(
                "depth: one of its processes was killed, most likely for lack of memory; set depth.workers lower. The "
                "parts that are done are kept"
            ) from None
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


def _workers(config: DepthConfig, parts: int) -> int:
    clouds = parts * config.part * (1 + config.sweeps)
    most = config.workers or available_cores()
    return max(1, min(most, parts, clouds // CLOUDS_PER_WORKER))
