"""What ingest can be told."""

from pydantic import Field

from tasks.settings import Settings, runtime

VERSION = 3

# The nuScenes tables; ingest reads every one.
TABLES = (
    "category",
    "attribute",
    "visibility",
    "instance",
    "sensor",
    "calibrated_sensor",
    "ego_pose",
    "log",
    "scene",
    "sample",
    "sample_data",
    "sample_annotation",
    "map",
)
SPLITS_FILE = "splits.json"  # the devkit's custom splits, beside the tables; optional


class IngestConfig(Settings):
    """How much of the time before a key frame goes into the index, and how hard its files are looked at."""

    sweeps: int = Field(10, ge=0, le=10, description="Previous LiDAR sweeps of each sample, nearest first.")
    frames: int = Field(0, ge=0, le=60, description="Previous frames (12 Hz) of each camera, nearest first.")
    read_gigabytes: float = runtime(
        24.0,
        "Point clouds are read through for NaN and infinity, key frames first, up to this much; the rest by size only. "
        "24 GB holds every key frame of v1.0-trainval.",
        ge=0,
    )
    threads: int = runtime(16, "Threads that look at files.", ge=1, le=256)
