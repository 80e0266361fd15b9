"""Looking at many files of a dataroot, in a pool of threads; and at its map masks."""

import os
import stat
import struct
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from common.files import patiently, read_regular
from common.progress import progress
from dataroot.checks import leaves_dataroot
from dataroot.faults import Faults, FileFault
from dataroot.tables import Table

MISSING = "the file is missing"
FETCH_MAP = "get the file again from the nuScenes archives"
FETCH = FETCH_MAP + ", or name it in ingest.leave_out"
SCENES = ", or take the scenes that are whole with ingest.scenes=available"
FEWER = ", or ask for fewer with ingest.sweeps or ingest.frames"
AT_ONCE = 64  # files that a thread looks at before it reports


def check_maps(dataroot: Path, tables: dict[str, Table], threads: int, faults: Faults) -> int:
    """Look at the map masks, without which the devkit opens no dataset. Returns their count."""
    rows = inside(tables["map"], np.arange(tables["map"].rows))
    paths = [str(name) for name in tables["map"].text("filename", rows)]

    def look(i: int) -> FileFault | None:
        return png_fault(dataroot / paths[i])

    look_at("map.filename", paths, range(len(paths)), look, threads, faults, usual=FETCH_MAP)
    return len(paths)


def look_at(
    field: str,
    paths: list[str],
    which: Iterable[int],
    look: Callable[[int], FileFault | None],
    threads: int,
    faults: Faults,
    what: str = "dataroot: look at files",
    usual: str = FETCH,
) -> None:
    """`look(i)` at the files `paths[i]` in threads; what is found goes into the faults, kind by kind.

    usual: the remedy where `FileFault` has none of its own.
    """
    which = list(which)
    by_kind: dict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    with ThreadPoolExecutor(threads) as pool:
        looks = zip(which, _in_order(pool, look, which, 4 * threads), strict=True)
        for i, fault in progress(looks, what, len(which), "files"):
            if fault is not None:
                usual_here = usual + (FEWER if paths[i].startswith("sweeps/") else "")
                if usual == FETCH and fault.what == MISSING:
                    usual_here += SCENES
                by_kind[fault.what, fault.remedy or usual_here].append((paths[i], field, fault.detail))
    for (words, remedy), files in by_kind.items():
        faults.add_files(words, remedy, files)
        if usual == FETCH:
            faults.files += [path for path, _, _ in files]


def _in_order(
    pool: ThreadPoolExecutor, look: Callable[[int], FileFault | None], which: list[int], ahead: int
) -> Iterator[FileFault | None]:
    """`look(i)` of each, in order. A dataset has half a million files: only a few are waited for at a time."""
    chunks = (which[i : i + AT_ONCE] for i in range(0, len(which), AT_ONCE))
    waiting: deque = deque()
    for chunk in chunks:
        waiting.append(pool.submit(_each, look, chunk))
        if len(waiting) > ahead:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _each(look: Callable[[int], FileFault | None], which: list[int]) -> list[FileFault | None]:
    return [look(i) for i in which]


def inside(table: Table, rows: np.ndarray) -> np.ndarray:
    """The rows whose path is there and stays in the dataroot; the others have their fault from the tables."""
    good = table.good("filename")
    return np.array([r for r in rows.tolist() if good[r] and not leaves_dataroot(table["filename"][r])], np.int64)


def file_size(path: Path) -> tuple[FileFault | None, int]:
    """What is wrong with a file of any kind by its state, and its bytes (0 where something is)."""
    try:
        state = patiently(path, lambda: os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return FileFault(MISSING), 0
    except OSError as error:
        return FileFault("cannot be read", error.strerror or ""), 0
    if stat.S_ISDIR(state.st_mode):
        return FileFault("is a folder, not a file"), 0
    if not stat.S_ISREG(state.st_mode):
        return FileFault("is no regular file"), 0
    return (FileFault("the file is empty"), 0) if state.st_size == 0 else (None, state.st_size)


def png_fault(path: Path) -> FileFault | None:
    """What is wrong with a map mask: walks the PNG's chunks and their checksums without decoding the pixels."""
    fault, _ = file_size(path)
    if fault is not None:
        return fault
    try:
        data = read_regular(path)
    except OSError as error:
        return FileFault("cannot be read", error.strerror or "")
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        return FileFault("is no PNG: does not start as one")
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return FileFault("is a damaged PNG: a checksum is wrong")
        if data[at + 4 : at + 8] == b"IEND":
            return None
        at = end
    return FileFault("is a PNG cut short")
