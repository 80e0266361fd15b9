"""What a dataroot is, for a key: the content of its tables, and which files it holds (names, sizes). Never its path."""

import contextlib
import functools
import json
from pathlib import Path

from common.files import patiently, read_regular
from dataroot.cameras import cameras_among
from dataroot.names import SPLITS_FILE, TABLES
from models.names import CAMERAS, LIDAR
from storage.digests import Digests
from storage.key import digest
from tasks.engine.stage import CAMERA_SWEEPS
from tasks.ingest.config import IngestConfig

SIMULATED = "simulated.json"  # with which version of the simulator a world was made
SAMPLES, LIDAR_SWEEPS = "samples", f"sweeps/{LIDAR}"
RIG = "cameras"  # an entry where they are not nuScenes' six


def dataroot_digests(dataroot: Path, version: str, config: IngestConfig, digests: Digests) -> dict[str, str]:
    """Name -> SHA-256: of each table's bytes, and of the listings of the folders that ingest looks into.

    What is missing or cannot be read has no entry: it is for ingest to report, beside all other faults. Raises
    FileSystemError where the file system fails.
    """
    tables = [*(f"{version}/{table}.json" for table in TABLES), f"{version}/{SPLITS_FILE}", SIMULATED]
    asked = {name: functools.partial(digests.of, dataroot / name) for name in tables if (dataroot / name).is_file()}
    skip = _is_radar if config.lidar else _is_no_camera
    asked[SAMPLES] = functools.partial(digests.of_folder, dataroot / SAMPLES, skip=skip)
    if config.sweeps and config.lidar:
        asked[LIDAR_SWEEPS] = functools.partial(digests.of_folder, dataroot / LIDAR_SWEEPS)
    if config.frames:
        asked[CAMERA_SWEEPS] = functools.partial(digests.of_folder, dataroot / "sweeps", skip=_is_no_camera)
    if not config.cameras:
        asked[RIG] = functools.partial(_rig, dataroot, f"{version}/sensor.json")
    out = {}
    for name, ask in asked.items():
        with contextlib.suppress(OSError):
            out[name] = patiently(dataroot / name, ask)
    return {name: digest for name, digest in out.items() if digest}


def _is_radar(name: str) -> bool:
    return name.startswith("RADAR_")


def _is_no_camera(name: str) -> bool:
    return _is_radar(name) or name == LIDAR


def _rig(dataroot: Path, file: str) -> str:
    """The digest of the cameras that are taken where none are named, "" for nuScenes' six.

    There was a time when those six were taken of every dataset: an index of then has the key of then.
    """
    try:
        rows = json.loads(read_regular(dataroot / file))
        there = cameras_among((str(row["channel"]), str(row["modality"])) for row in rows)
    except (ValueError, TypeError, KeyError, RecursionError):  # ingest says what is wrong
        return ""
    return "" if there in ((), CAMERAS) else digest(list(there))
