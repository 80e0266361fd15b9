"""The parts of a teacher artifact, written by this process or by several: one a GPU, or one a CPU core."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.cores import SharingContext, available_cores
from common.errors import UserError
from common.processes import die_with
from models.lidar.teacher import Teacher
from storage.index import Index
from storage.leases import PartLease
from storage.part_board import PartBoard
from tasks.engine.crew import done_here, write_shared
from tasks.teacher.config import TeacherConfig
from tasks.teacher.network import build_teacher
from tasks.teacher.parts import PartWriter, Times


@dataclass(frozen=True)
class Job:
    """What a process needs to know."""

    config: TeacherConfig
    dataroot: Path
    index: Path
    weights: Path | None  # as in build_teacher
    folder: Path

    def writer(self, teacher: Teacher, index: Index, device: torch.device) -> PartWriter:
        return PartWriter(self.config, teacher, index, self.dataroot, self.folder, device)


def write_parts(
    job: Job, writer: PartWriter, board: PartBoard, device: torch.device
) -> Iterator[tuple[int, Times | None]]:
    """Write what is left of the board, with whoever else does; (part, times, None of another's) of each, in any order.

    writer: this process's, for where it has no workers.
    """
    workers = min(len(board.left), job.config.workers or _processors(device))
    if workers <= 1:
        yield from write_shared(board, "teacher", lambda part, lease: done_here(writer.write, part, lease.check), 1)
        return
    context = SharingContext(job.config.threads or max(1, available_cores() // workers))
    devices = context.Queue()
    for worker in range(workers):
        devices.put(f"cuda:{worker % torch.cuda.device_count()}" if device.type == "cuda" else device.type)
    with ProcessPoolExecutor(workers, context, _start, (job, devices)) as pool:
        try:
            # One more than there are workers, so that none waits for the next.
            yield from write_shared(board, "teacher", lambda part, lease: _submitted(pool, part, lease), workers + 1)
        except BrokenProcessPool:
            context.kill()
            raise UserError(
                "teacher: one of its processes was killed, most likely for lack of memory; set teacher.workers lower. "
                "The parts that are done are kept"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, part: int, lease: PartLease) -> Future[Times]:
    """Raises BrokenProcessPool."""
    try:
        return pool.submit(_write_part, part, lease)
    except OSError as error:
        if error.errno is not None:  # the system's
            raise
        # A worker was killed while the next one was started: the pool has closed the pipe that this one inherits.
        raise BrokenProcessPool from None


def _processors(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.device_count() if device.index is None else 1
    return available_cores()


# A worker's own: what it was started with, and the writer it makes of it at its first part. (Not in `_start`: an
# exception there would reach the parent as a broken pool, without its sentence.)
_given: tuple[Job, Any]
_writer: PartWriter | None = None


def _start(*given: Any) -> None:
    global _given
    _given = given
    die_with([os.getppid()])


def _write_part(part: int, lease: PartLease) -> Times:
    global _writer
    if _writer is None:
        job, devices = _given
        index = Index.open(job.index)
        teacher = build_teacher(job.config, index, job.dataroot, job.weights)
        _writer = job.writer(teacher, index, torch.device(devices.get()))
    return _writer.write(part, lease.check)
