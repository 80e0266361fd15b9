"""What a dataroot is, for a key: the content of its tables, and which files it holds (names, sizes). Never its path."""

from pathlib import Path

from storage.digests import Digests
from tasks.ingest.config import SPLITS_FILE, TABLES, IngestConfig
from tasks.stage import CAMERA_SWEEPS

SIMULATED = "simulated.json"  # with which version of the simulator a world was made
SAMPLES, LIDAR_SWEEPS = "samples", "sweeps/LIDAR_TOP"


def dataroot_digests(dataroot: Path, version: str, config: IngestConfig, digests: Digests) -> dict[str, str]:
    """Name -> SHA-256: of each table's bytes, and of the listings of the folders that ingest looks into.

    A table or folder that is missing has no entry: it is for ingest to report, beside all other faults.
    """
    names = [f"{version}/{table}.json" for table in TABLES] + [f"{version}/{SPLITS_FILE}", SIMULATED]
    out = {name: digests.of(dataroot / name) for name in names if (dataroot / name).is_file()}
    listings = {SAMPLES: digests.of_folder(dataroot / SAMPLES, skip=_is_radar)}
    if config.sweeps:
        listings[LIDAR_SWEEPS] = digests.of_folder(dataroot / LIDAR_SWEEPS)
    if config.frames:
        listings[CAMERA_SWEEPS] = digests.of_folder(dataroot / "sweeps", skip=lambda name: not name.startswith("CAM_"))
    return out | {name: found for name, found in listings.items() if found}


def _is_radar(name: str) -> bool:
    return name.startswith("RADAR_")
