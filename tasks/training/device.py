"""Where a network runs: its device, and how many CPU threads it takes."""

from collections.abc import Iterator
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
