"""What the files of a dataset's tables are called."""

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
LIDAR_COLUMNS = (4, 5, 6)  # numbers a point that a point file may have
