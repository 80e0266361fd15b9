"""A big JSON list read in pieces, none of which holds all of its text: where to cut it, and who parses the pieces.

Parsing trainval's three big tables takes most of a minute, so that several processes do it where there are cores for
them; each reads its own pieces and sends back their columns.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from common.cores import SharingContext, available_cores
from common.files import open_regular, patiently

Result = TypeVar("Result")

BETWEEN = re.compile(rb"\}\s*,\s*\{")
WINDOW = 1 << 12  # bytes in which a cut is looked for at first
MANY = 1 << 25  # bytes of a file from which processes are worth their start
MOST_PROCESSES = 8  # the parent receives what they find, and has enough to do with as many

Span = tuple[int, int]  # the first byte, and the first after it


def spans(path: Path, piece: int) -> list[Span]:
    """Where rows of a JSON list of objects begin and end, about `piece` bytes each, without its brackets.

    Empty where it is short, or no list at first sight. A cut may lie inside a text that looks like the end of a row:
    then what is on its sides does not parse. Raises OSError and FileSystemError as `patiently` does.
    """

    def look() -> list[Span]:
        descriptor = open_regular(path)
        try:
            return _spans(descriptor, os.fstat(descriptor).st_size, piece)
        finally:
            os.close(descriptor)

    return patiently(path, look)


def _spans(descriptor: int, size: int, piece: int) -> list[Span]:
    if size <= 2 * piece:
        return []
    head, tail = os.pread(descriptor, WINDOW, 0), os.pread(descriptor, WINDOW, max(0, size - WINDOW))
    if not head.lstrip().startswith(b"[") or not tail.rstrip().endswith(b"]"):
        return []
    start, end = head.find(b"[") + 1, size - len(tail) + tail.rfind(b"]")
    out = []
    while start < end:
        cut = _cut(descriptor, min(start + piece, end), end)
        stop, following = cut or (end, end)
        out.append((start, stop))
        start = following
    return out


def _cut(descriptor: int, start: int, end: int) -> Span | None:
    """The end of the first row that ends behind `start`, and the start of the next."""
    window = WINDOW
    while True:
        stop = min(start + window, end)
        if found := BETWEEN.search(os.pread(descriptor, stop - start, start)):
            return start + found.start() + 1, start + found.end() - 1
        if stop == end:
            return None
        window *= 4


def read_span(path: Path, span: Span) -> bytes:
    """The bytes of a span. Raises OSError and FileSystemError as `patiently` does."""

    def read() -> bytes:
        with open(open_regular(path), "rb", buffering=0) as file:
            file.seek(span[0])
            out = b""
            while len(out) < span[1] - span[0]:
                if not (more := file.read(span[1] - span[0] - len(out))):
                    break  # the file has become shorter: what there is does not parse
                out += more
            return out

    return patiently(path, read)


class Parsers:
    """Processes that parse pieces, started with the first big file; a context."""

    def __init__(self, processes: int | None = None):
        self._count = min(available_cores(), MOST_PROCESSES) if processes is None else processes
        self._open = ExitStack()
        self._pool: Executor | None = None

    def map(self, parse: Callable[..., Result], path: Path, pieces: list[Span], *arguments: object) -> Iterator[Result]:
        """`parse(path, span, *arguments)` of each piece, in order; a few are waited for at a time."""
        if self._count < 2 or not pieces or pieces[-1][1] < MANY:
            yield from (parse(path, span, *arguments) for span in pieces)
            return
        pool, waiting = self._processes(), deque[Future[Result]]()
        try:
            for span in pieces:
                waiting.append(pool.submit(parse, path, span, *arguments))
                if len(waiting) > 4 * self._count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for job in waiting:
                job.cancel()

    def _processes(self) -> Executor:
        if self._pool is None:
            self._pool = self._open.enter_context(
                ProcessPoolExecutor(self._count, mp_context=SharingContext(threads=1))
            )
        return self._pool

    def __enter__(self) -> "Parsers":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()
