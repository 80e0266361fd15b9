"""Processes that are launched as torchrun launches them, but faster: forks of one that has imported torch."""

import os
import socket
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any


def ended(forks: ForkServerContext, folder: Path, run: Callable[..., None], *args: Any) -> tuple[list[int], list[str]]:
    """Two ranks that run `run(*args)`: their exit codes and what each told, when they have ended."""
    port, told = free_port(), [folder / f"rank{rank}" for rank in range(2)]
    ranks = [forks.Process(target=launched, args=((rank, 2, port), told[rank], run, *args)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    return [process.exitcode for process in ranks], [file.read_text() for file in told]


def launched(place: tuple[int, int, int], told: Path, run: Callable[..., None], *args: Any) -> None:
    """`run(*args)` as a rank, of so many, that meets the others at a port; what it tells goes to a file."""
    for number in (1, 2):
        os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    names = ("RANK", "WORLD_SIZE", "MASTER_PORT", "LOCAL_RANK", "MASTER_ADDR")
    os.environ.update(zip(names, map(str, (*place, place[0], "127.0.0.1"))))
    run(*args)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]
