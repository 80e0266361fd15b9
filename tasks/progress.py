"""Progress of long work: a bar on a terminal, a line now and then elsewhere (logs, Prefect)."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 15.0


def progress(items: Iterable[Item], what: str, total: int, unit: str = "", done: int = 0) -> Iterator[Item]:
    """Yield `items`, showing how many of `total` are done (`done` before the first: resumed work) and at what rate."""
    if sys.stderr.isatty():
        yield from _bar(items, what, total, unit, done)
    else:
        yield from _lines(items, what, total, unit, done)


def say(line: str) -> None:
    """One line about the work, above a bar where there is one."""
    print(line, file=sys.stderr, flush=True)


def _bar(items: Iterable[Item], what: str, total: int, unit: str, done: int) -> Iterator[Item]:
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
        for item in items:
            yield item
            bar.advance(task)


def _lines(items: Iterable[Item], what: str, total: int, unit: str, done: int) -> Iterator[Item]:
    start = last = time.monotonic()
    first = done
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done < total:
            rate = (done - first) / (now - start)
            say(f"{what}: {done}/{total} {unit}, {rate:.2g}/s, {(total - done) / rate:.0f} s to go")
            last = now
