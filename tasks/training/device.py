"""Where a network runs: its device, how many CPU threads it takes, and the thread that loads ahead of it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from tasks.errors import UserError


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


def loader_thread() -> ThreadPoolExecutor:
    """A thread that prepares the next batch, kept to one core.

    Two teams of OpenMP threads on the same cores halve each other's speed.
    """
    count = torch.get_num_threads()
    ahead = ThreadPoolExecutor(1)
    ahead.submit(_one_thread).result()
    torch.set_num_threads(count)
    return ahead


def _one_thread() -> None:
    torch.get_num_threads()  # makes torch set up this thread, which would undo the next call at its first operation
    torch.set_num_threads(1)
