"""A big JSON list read in pieces, none of which holds all of its text: where to cut it."""

import os
import re
from pathlib import Path

from common.files import open_regular, patiently

BETWEEN = re.compile(rb"\}\s*,\s*\{")
WINDOW = 1 << 12  # bytes in which a cut is looked for at first

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
