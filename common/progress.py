"""Progress of long work: a bar on a terminal, a line now and then elsewhere (logs, Prefect)."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 15.0


def progress(items: Iterable[Item], what: str, total: int, unit: str = "", done: int = 0) -> Iterator[Item]:
    """Yield `items`, showing how many of `total` are done (`done` before the first: resumed work) and at what rate."""
    with counting(what, total, unit, done) as step:
        for item in items:
            yield item
            step()


@contextmanager
def counting(what: str, total: int, unit: str = "", done: int = 0) -> Iterator[Callable[..., None]]:
    """What to call whenever one more of `total` is done; its arguments are of no consequence."""
    with (_bar if sys.stderr.isatty() else _lines)(what, total, unit, done) as step:
        yield step


def say(line: str) -> None:
    """One line about the work, above a bar where there is one."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _bar(what: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn(unit),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda *_: bar.advance(task)


@contextmanager
def _lines(what: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
    start = last = time.monotonic()
    first = done

    def step(*_: object) -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done < total:
            rate = (done - first) / (now - start)
            say(f"{what}: {done}/{total} {unit}, {rate:.2g}/s, {(total - done) / rate:.0f} s to go")
            last = now

    yield step
