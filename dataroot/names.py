"""What the files of a dataset's tables are called, and which of its scenes can be asked for."""

from typing import Literal

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
Scenes = Literal["all", "available"] | tuple[str, ...]  # available: of which every file is there; or by name
LIDAR_COLUMNS = (4, 5, 6)  # numbers a point that a point file may have
