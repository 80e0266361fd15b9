"""Batches made ahead of time by threads, so that whoever computes on them does not wait.

Threads, not processes: JPEG decoding, resizing and decompression let go of the interpreter's lock, nothing has to be
pickled or squeezed through /dev/shm, and no worker outlives a killed run. On two cores threads load more
(`bench/loader.py --workers`). (Which is faster beside a GPU has not been measured.)
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Generic, TypeVar

import torch

from common.cores import available_cores
from training.device import loader_threads

Batch = TypeVar("Batch")

MOST_LOADERS = 8  # threads of a rank


def choose_loaders(asked: int, device: torch.device, ranks: int = 1) -> int:
    """Threads that load for one of `ranks` processes: as asked; for 0 the cores that training leaves, at most 8.

    Training on a CPU wants all cores itself, and has time: one thread is enough.
    """
    if asked or device.type == "cpu":
        return asked or 1
    return min(MOST_LOADERS, max(1, available_cores() // ranks - 1))


class Prefetcher(Generic[Batch]):
    """`load(step)` for each of `steps`, in their order, made by `workers` threads.

    At most `ahead` batches are finished or in the making, besides the one last handed out. What `load` raises is raised
    where its batch would have come. Leaving the context waits for the loads under way and drops the rest.

        with Prefetcher(load, range(done, steps), workers=4, ahead=5) as batches:
            for step, batch in zip(range(done, steps), batches): ...
    """

    def __init__(self, load: Callable[[int], Batch], steps: Iterable[int], workers: int, ahead: int):
        self._load, self._steps, self._ahead = load, iter(steps), ahead
        self._coming: deque[Future[Batch]] = deque()
        self._pool = loader_threads(workers)
        self._fill()

    def __enter__(self) -> "Prefetcher[Batch]":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if not self._coming:
            raise StopIteration
        batch = self._coming.popleft().result()
        self._fill()
        return batch

    def _fill(self) -> None:
        while len(self._coming) < self._ahead and (step := next(self._steps, None)) is not None:
            self._coming.append(self._pool.submit(self._load, step))
