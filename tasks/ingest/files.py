"""The checks that look at files: point clouds, images and map masks, in a pool of threads."""

import os
import stat
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tasks.ingest.checks import leaves_dataroot
from tasks.ingest.config import IngestConfig
from tasks.ingest.faults import Faults
from tasks.ingest.selection import Selection
from tasks.ingest.tables import Table
from tasks.progress import progress

POINT_BYTES = 20  # float32 x, y, z, intensity, ring
HEAD_BYTES = 1 << 16  # of a JPEG: where its size stands, unless it carries a big preview
FETCH = "get the file again from the nuScenes archives"
FETCH_OR_FEWER = FETCH + ", or ask for fewer with ingest.sweeps or ingest.frames"

Found = tuple[str, str] | None  # (what is wrong, detail)


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
    cloud_bytes = np.zeros(len(cloud_paths), np.int64)

    def cloud(i: int) -> Found:
        found, cloud_bytes[i] = cloud_fault(dataroot / cloud_paths[i])
        return found

    jobs: list[tuple[str, list[str], Callable[[int], Found]]] = [
        ("sample_data.filename", cloud_paths, cloud),
        ("sample_data.filename", image_paths, lambda i: jpeg_fault(dataroot / image_paths[i], *sizes[i].tolist())),
    ]
    for field, paths, look in jobs:
        _look(field, paths, range(len(paths)), look, config, faults)
    maps = check_maps(dataroot, tables, config, faults)
    # Sizes first, contents of as many clouds as the budget holds afterwards; a cloud with a fault has size 0 here.
    read = np.flatnonzero((cloud_bytes > 0) & (np.cumsum(cloud_bytes) <= config.read_gigabytes * 1e9)).tolist()
    contents: tuple = ("sample_data.filename", cloud_paths, read, lambda i: contents_fault(dataroot / cloud_paths[i]))
    _look(*contents, config, faults)
    return {"files": len(cloud_paths) + len(image_paths) + maps, "clouds_read": len(read)}


def check_maps(dataroot: Path, tables: dict[str, Table], config: IngestConfig, faults: Faults) -> int:
    """Look at the map masks, without which the devkit opens no dataset. Returns their count."""
    rows = _inside(tables["map"], np.arange(tables["map"].rows))
    paths = [str(name) for name in tables["map"].text("filename", rows)]
    _look("map.filename", paths, range(len(paths)), lambda i: png_fault(dataroot / paths[i]), config, faults)
    return len(paths)


def _inside(table: Table, rows: np.ndarray) -> np.ndarray:
    """The rows whose path is there and stays in the dataroot; the others have their fault from the tables."""
    good = table.good("filename")
    return np.array([r for r in rows.tolist() if good[r] and not leaves_dataroot(table["filename"][r])], np.int64)


def _look(
    field: str,
    paths: list[str],
    which: Iterable[int],
    look: Callable[[int], Found],
    config: IngestConfig,
    faults: Faults,
) -> None:
    which = list(which)
    by_kind: dict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    with ThreadPoolExecutor(config.threads) as pool:
        found = zip(which, pool.map(look, which), strict=True)
        for i, fault in progress(found, "ingest: files", len(which), "files"):
            if fault is not None:
                remedy = FETCH_OR_FEWER if paths[i].startswith("sweeps/") else FETCH
                by_kind[fault[0], remedy].append((paths[i], field, fault[1]))
    for (what, remedy), files in by_kind.items():
        faults.add_files(what, remedy, files)


def _size(path: Path) -> tuple[Found, int]:
    try:
        state = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ("the file is missing", ""), 0
    except OSError as error:
        return ("cannot be read", error.strerror or ""), 0
    if stat.S_ISDIR(state.st_mode):
        return ("is a folder, not a file", ""), 0
    if not stat.S_ISREG(state.st_mode):
        return ("is no regular file", ""), 0
    return (("the file is empty", ""), 0) if state.st_size == 0 else (None, state.st_size)


def cloud_fault(path: Path) -> tuple[Found, int]:
    """What is wrong with a point cloud by its size alone, and its bytes (0 where something is)."""
    found, size = _size(path)
    if found is None and size % POINT_BYTES:
        return ("is cut short or no point cloud: not a multiple of 20 bytes", f"{size:,} bytes"), 0
    return found, size


def contents_fault(path: Path) -> Found:
    """Whether a point cloud holds NaN or infinity."""
    try:
        values = np.fromfile(path, np.float32)
    except OSError as error:
        return "cannot be read", error.strerror or ""
    # The sum is finite unless a value is not (or floats overflow): one pass without a temporary for the usual case.
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum()):
            return None
    bad = ~np.isfinite(values[: len(values) // 5 * 5].reshape(-1, 5)).all(1)
    return ("holds NaN or infinity", f"{bad.sum():,} of {len(bad):,} points") if bad.any() else None


def jpeg_fault(path: Path, width: int, height: int) -> Found:
    """What is wrong with an image that the table says is width x height (0 x 0: it does not say)."""
    found, size = _size(path)
    if found is not None:
        return found
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(HEAD_BYTES)
            file.seek(max(0, size - 2))
            end = file.read(2)
            if head[:2] != b"\xff\xd8":
                return "is no JPEG: does not start as one", ""
            if end != b"\xff\xd9":
                return "is a JPEG cut short: does not end as one", ""
            found_size = jpeg_size(head)
            if found_size is None and size > HEAD_BYTES:
                file.seek(0)
                found_size = jpeg_size(file.readall())
    except OSError as error:
        return "cannot be read", error.strerror or ""
    if found_size is None:
        return "is a damaged JPEG: no header says its size", ""
    if (width, height) != (0, 0) and found_size != (width, height):
        return "has another size than sample_data.json says", f"{found_size[0]}x{found_size[1]}, not {width}x{height}"
    return None


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from a JPEG's frame header, or None where the bytes hold none (ITU T.81, B.1.1.4 and B.2.2)."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if at + 9 > len(data):
                return None
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        elif marker in (0xD9, 0xDA):  # the end, or pixels before any frame header
            return None
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def png_fault(path: Path) -> Found:
    """What is wrong with a map mask: walks the PNG's chunks and their checksums without decoding the pixels."""
    found, _ = _size(path)
    if found is not None:
        return found
    try:
        data = path.read_bytes()
    except OSError as error:
        return "cannot be read", error.strerror or ""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        return "is no PNG: does not start as one", ""
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return "is a damaged PNG: a checksum is wrong", ""
        if data[at + 4 : at + 8] == b"IEND":
            return None
        at = end
    return "is a PNG cut short", ""
