"""The checks that look at files: point clouds, images and map masks, in a pool of threads."""

import os
import stat
import struct
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tasks.files import patiently, read_regular
from tasks.ingest.checks import leaves_dataroot
from tasks.ingest.clouds import cloud_fault
from tasks.ingest.config import IngestConfig
from tasks.ingest.faults import Faults, Found
from tasks.ingest.jpeg import jpeg_fault
from tasks.ingest.selection import Selection
from tasks.ingest.tables import Table
from tasks.progress import progress

FETCH_MAP = "get the file again from the nuScenes archives"
FETCH = FETCH_MAP + ", or name it in ingest.leave_out"
FEWER = ", or ask for fewer with ingest.sweeps or ingest.frames"
AT_ONCE = 64  # files that a thread looks at before it reports


def check_files(
    dataroot: Path, tables: dict[str, Table], selection: Selection, config: IngestConfig, faults: Faults
) -> dict[str, int]:
    """Look at every file that the index or the devkit will name. Returns counts: files, and clouds read through."""
    data = tables["sample_data"]
    clouds, images = (_inside(data, rows) for rows in (selection.clouds(), selection.images()))
    # A row whose size is bad has its own fault already; its image is then only looked at as an image.
    sized = (data.good("width", "height") & (data["width"] > 0) & (data["height"] > 0))[images]
    sizes = np.where(sized[:, None], np.stack([data["width"][images], data["height"][images]], 1), 0)

    cloud_paths = [str(name) for name in data.text("filename", clouds)]
    image_paths = [str(name) for name in data.text("filename", images)]
    cloud_bytes, orientation = np.zeros(len(cloud_paths), np.int64), np.ones(len(image_paths), np.int64)

    def cloud(i: int) -> Found | None:
        found, cloud_bytes[i] = cloud_size(dataroot / cloud_paths[i], config.lidar_columns)
        return found

    def image(i: int) -> Found | None:
        found, orientation[i] = image_fault(dataroot / image_paths[i], *sizes[i].tolist())
        return found

    field = "sample_data.filename"
    look_at(field, cloud_paths, range(len(cloud_paths)), cloud, config, faults)
    look_at(field, image_paths, range(len(image_paths)), image, config, faults)
    _warn_of_turned([image_paths[i] for i in np.flatnonzero(orientation != 1)], faults)
    maps = check_maps(dataroot, tables, config, faults)
    # Sizes first, contents of as many clouds as the budget holds afterwards; a cloud with a fault has size 0 here.
    budget = 0 if config.deep else config.read_gigabytes * 1e9  # `check_deep` reads all of them
    read = np.flatnonzero((cloud_bytes > 0) & (np.cumsum(cloud_bytes) <= budget)).tolist()

    def contents(i: int) -> Found | None:
        return contents_fault(dataroot / cloud_paths[i], config.lidar_columns)

    look_at(field, cloud_paths, read, contents, config, faults)
    return {"files": len(cloud_paths) + len(image_paths) + maps, "clouds_read": len(read)}


def check_maps(dataroot: Path, tables: dict[str, Table], config: IngestConfig, faults: Faults) -> int:
    """Look at the map masks, without which the devkit opens no dataset. Returns their count."""
    rows = _inside(tables["map"], np.arange(tables["map"].rows))
    paths = [str(name) for name in tables["map"].text("filename", rows)]

    def look(i: int) -> Found | None:
        return png_fault(dataroot / paths[i])

    look_at("map.filename", paths, range(len(paths)), look, config, faults, usual=FETCH_MAP)
    return len(paths)


def look_at(
    field: str,
    paths: list[str],
    which: Iterable[int],
    look: Callable[[int], Found | None],
    config: IngestConfig,
    faults: Faults,
    what: str = "look at files",
    usual: str = FETCH,
) -> None:
    """`look(i)` at the files `paths[i]` in threads; what is found goes into the faults, kind by kind.

    usual: the remedy where `Found` has none of its own.
    """
    which = list(which)
    by_kind: dict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    with ThreadPoolExecutor(config.threads) as pool:
        found = zip(which, _in_order(pool, look, which, 4 * config.threads), strict=True)
        for i, fault in progress(found, f"ingest: {what}", len(which), "files"):
            if fault is not None:
                fewer = FEWER if paths[i].startswith("sweeps/") else ""
                by_kind[fault.what, fault.remedy or usual + fewer].append((paths[i], field, fault.detail))
    for (words, remedy), files in by_kind.items():
        faults.add_files(words, remedy, files)
        if usual == FETCH:
            faults.files += [path for path, _, _ in files]


def _in_order(
    pool: ThreadPoolExecutor, look: Callable[[int], Found | None], which: list[int], ahead: int
) -> Iterator[Found | None]:
    """`look(i)` of each, in order. A dataset has half a million files: only a few are waited for at a time."""
    chunks = (which[i : i + AT_ONCE] for i in range(0, len(which), AT_ONCE))
    waiting: deque = deque()
    for chunk in chunks:
        waiting.append(pool.submit(_each, look, chunk))
        if len(waiting) > ahead:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _each(look: Callable[[int], Found | None], which: list[int]) -> list[Found | None]:
    return [look(i) for i in which]


def _inside(table: Table, rows: np.ndarray) -> np.ndarray:
    """The rows whose path is there and stays in the dataroot; the others have their fault from the tables."""
    good = table.good("filename")
    return np.array([r for r in rows.tolist() if good[r] and not leaves_dataroot(table["filename"][r])], np.int64)


def _size(path: Path) -> tuple[Found | None, int]:
    try:
        state = patiently(path, lambda: os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return Found("the file is missing"), 0
    except OSError as error:
        return Found("cannot be read", error.strerror or ""), 0
    if stat.S_ISDIR(state.st_mode):
        return Found("is a folder, not a file"), 0
    if not stat.S_ISREG(state.st_mode):
        return Found("is no regular file"), 0
    return (Found("the file is empty"), 0) if state.st_size == 0 else (None, state.st_size)


def cloud_size(path: Path, columns: int) -> tuple[Found | None, int]:
    """What is wrong with a point file by its size, and its bytes (0 where something is)."""
    found, size = _size(path)
    if found is None and size % (4 * columns):
        return contents_fault(path, columns), 0
    return found, size


def contents_fault(path: Path, columns: int) -> Found | None:
    """What is wrong with a point file by its values."""
    try:
        return cloud_fault(read_regular(path), columns)
    except OSError as error:
        return Found("cannot be read", error.strerror or "")


def image_fault(path: Path, width: int, height: int) -> tuple[Found | None, int]:
    """What is wrong with an image of width x height (0 x 0: unknown), and its EXIF orientation."""
    found, _ = _size(path)
    if found is not None:
        return found, 1
    try:
        return patiently(path, lambda: jpeg_fault(path, width, height))
    except OSError as error:
        return Found("cannot be read", error.strerror or ""), 1


def _warn_of_turned(paths: list[str], faults: Faults) -> None:
    if paths:
        faults.warn(
            "exif_orientation",
            f"images of which EXIF says to turn them before they are shown: {len(paths):,}, such as {paths[0]}; the "
            "network gets the pixels as they are stored, which the calibration must be of",
        )


def png_fault(path: Path) -> Found | None:
    """What is wrong with a map mask: walks the PNG's chunks and their checksums without decoding the pixels."""
    found, _ = _size(path)
    if found is not None:
        return found
    try:
        data = read_regular(path)
    except OSError as error:
        return Found("cannot be read", error.strerror or "")
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        return Found("is no PNG: does not start as one")
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return Found("is a damaged PNG: a checksum is wrong")
        if data[at + 4 : at + 8] == b"IEND":
            return None
        at = end
    return Found("is a PNG cut short")
