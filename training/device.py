"""Where a network runs: its device, how many CPU threads it takes, and the threads that load ahead of it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from common.errors import UserError


def choose_device(name: str) -> torch.device:
    """`cpu`, `cuda`, `cuda:1` ... or `auto`. Raises UserError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r}: there is cpu, cuda, cuda:1 ... and auto") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r}: torch finds no CUDA device; set device to cpu or auto")
    return device


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` CPU threads (0: as it is) inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def loader_threads(count: int) -> ThreadPoolExecutor:
    """Threads that prepare the next batches, each kept to one core.

    Two teams of OpenMP threads on the same cores halve each other's speed.
    """
    before, started = torch.get_num_threads(), threading.Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # makes torch set up this thread, which would undo the next call at its first operation
        torch.set_num_threads(1)  # also for threads that torch has not set up yet: put back below, once all are
        started.wait()

    pool = ThreadPoolExecutor(count, "loader", begin)
    for _ in range(count):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(before)
    return pool
