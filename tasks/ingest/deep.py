"""`geomim ingest --deep`: every image decoded and every point cloud looked at by its values.

On trainval that takes long, so what was looked at is kept by path, size and time of change, and is not looked at
again: after an interruption, or with more sweeps, only the rest is.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from common.files import patiently, read_regular
from common.progress import say
from dataroot.faults import Faults, FileFault
from dataroot.files import look_at
from dataroot.jpeg import pixels_fault
from tasks.ingest.config import VERSION, IngestConfig
from tasks.ingest.files import contents_fault

FIELD = "sample_data.filename"


class Record:
    """The files that were looked at and are good: a line each, written as soon as it is known."""

    def __init__(self, path: Path):
        self._good = set()
        torn = b""
        if path.is_file():
            *lines, torn = path.read_bytes().split(b"\n")
            self._good = set(lines)
        self._file, self._lock = open(path, "ab", buffering=0), threading.Lock()  # noqa: SIM115 (closed by `close`)
        if torn:  # the last line of a run that was killed
            self._file.write(b"\n")

    def look(self, how: str, path: Path, look: Callable[[Path], FileFault | None]) -> FileFault | None:
        """What `look` finds wrong with a file, which is asked only if the file is not known to be good."""
        try:
            state = patiently(path, lambda: os.stat(path))
        except OSError as error:
            return FileFault("cannot be read", error.strerror or "")
        line = os.fsencode(f"{VERSION} {how} {state.st_size} {state.st_mtime_ns} {path}")
        if line in self._good:
            return None
        found = look(path)
        if found is None and b"\n" not in line:
            with self._lock:
                self._file.write(line + b"\n")
        return found

    def __len__(self) -> int:
        return len(self._good)

    def close(self) -> None:
        self._file.close()


def record_of(dataroot: Path, folder: Path) -> Path:
    """The file in `folder` that says what of a dataroot was looked at."""
    return folder / f".deep-{hashlib.sha256(os.fsencode(dataroot.resolve())).hexdigest()[:16]}"


def check_deep(
    dataroot: Path, arrays: Mapping[str, np.ndarray], config: IngestConfig, record_file: Path, faults: Faults
) -> dict[str, int]:
    """Look at all files of an index's arrays. Returns counts: images decoded and clouds read, now or before."""
    dataroot = dataroot.resolve()
    images = _paths(arrays["camera_path"], arrays["frame_path"])
    clouds = _paths(arrays["lidar_path"], arrays["sweep_path"])
    record = Record(record_file)
    if len(record):
        say(f"ingest: {len(record):,} files were looked at before, as {record_file} says")

    def image(i: int) -> FileFault | None:
        return record.look("image", dataroot / images[i], _image_fault)

    def cloud(i: int) -> FileFault | None:
        columns = config.lidar_columns
        return record.look(f"cloud{columns}", dataroot / clouds[i], lambda path: contents_fault(path, columns))

    try:
        look_at(FIELD, clouds, range(len(clouds)), cloud, config.threads, faults, "ingest: read clouds")
        look_at(FIELD, images, range(len(images)), image, config.threads, faults, "ingest: decode images")
    finally:
        record.close()
    return {"images_decoded": len(images), "clouds_read": len(clouds)}


def _image_fault(path: Path) -> FileFault | None:
    try:
        return pixels_fault(read_regular(path))
    except OSError as error:
        return FileFault("cannot be read", error.strerror or "")


def _paths(keys: np.ndarray, previous: np.ndarray) -> list[str]:
    """Paths, those of key frames first, each once and none blank."""
    return [path for path in dict.fromkeys([*keys.ravel().tolist(), *previous.ravel().tolist()]) if path]
