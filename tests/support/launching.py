"""Processes that are launched as torchrun launches them, but faster: forks of one that has imported torch."""

import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from common.launcher import is_follower
from flows import cli


def ended(
    forks: ForkServerContext, folder: Path, run: Callable[..., None], *args: Any, port: int | None = None
) -> tuple[list[int], list[str]]:
    """Two ranks that run `run(*args)`: their exit codes and what each told, when they have ended."""
    ranks = begun(forks, folder, run, *args, port=port)
    for process in ranks:
        process.join(120)
    return [process.exitcode for process in ranks], [(folder / f"rank{rank}").read_text() for rank in range(2)]


def begun(
    forks: ForkServerContext, folder: Path, run: Callable[..., None], *args: Any, port: int | None = None
) -> list[ForkServerProcess]:
    """Two ranks that run `run(*args)`; what each tells goes to a file, `rank0` and `rank1`."""
    port = port or free_port()
    ranks = [
        forks.Process(target=launched, args=((rank, 2, port), folder / f"rank{rank}", run, *args)) for rank in range(2)
    ]
    for process in ranks:
        process.start()
    return ranks


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


def typed(words: list[str], words_of_rank_1: list[str] | None = None) -> None:
    """The command line with these words on a rank."""
    sys.argv = ["geomim", *(words_of_rank_1 if words_of_rank_1 and is_follower() else words)]
    cli.main()
