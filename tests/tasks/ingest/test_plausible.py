"""Tables whose every value is well typed, and which together mean nothing or something else, on a simulated drive.

Of the real key frame and of the drive itself nothing is odd.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest

REAL = Path(__file__).resolve().parents[4] / "shared" / "real-keyframe"


def look(world, config: IngestConfig | None = None) -> tuple[dict[str, str], str]:
    """The warnings by name, and the report of the faults; NumPy's own warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return ingest(world.root, world.version, config or IngestConfig())[2]["warnings"], ""
        except DataError as error:
            return {}, str(error)


def each(change):
    """Do something to every row."""
    return lambda rows: [change(row) for row in rows]


def scale(field: str, factor: float):
    return each(lambda row: row.update({field: (np.array(row[field]) * factor).tolist()}))


def w_last(row: dict) -> None:
    row["rotation"] = [*row["rotation"][1:], row["rotation"][0]]


def times(factor: float, offset: int = 0):
    def change(world):
        for name in ("sample", "sample_data", "ego_pose"):
            world.edit(name, each(lambda row: row.update(timestamp=round((row["timestamp"] - offset) * factor))))

    return change


def edits(table: str, change):
    return lambda world: world.edit(table, change)


def turned(yaw: float, axis: int = 3):
    """Turn a rotation (wxyz) about one of its own axes (1 x, 2 y, 3 z) by an angle in degrees."""

    def change(row):
        half = np.deg2rad(yaw) / 2
        q = np.zeros(4)
        q[0], q[axis] = np.cos(half), np.sin(half)
        w, v = row["rotation"][0], np.array(row["rotation"][1:])
        turned = [w * q[0] - v @ q[1:], *(w * q[1:] + q[0] * v + np.cross(v, q[1:]))]
        row["rotation"] = (np.array(turned) / np.linalg.norm(turned)).tolist()

    return change


def front_to_back(row: dict) -> None:
    row["channel"] = {"CAM_FRONT": "CAM_BACK", "CAM_BACK": "CAM_FRONT"}.get(row["channel"], row["channel"])


def millimetres(world):
    for name in ("ego_pose", "sample_annotation", "calibrated_sensor"):
        world.edit(name, scale("translation", 1000))


def test_a_drive_is_not_odd(driven):
    assert look(driven) == ({}, "")


def test_a_name_that_says_nothing_promises_no_direction(drive):
    drive.edit("sensor", each(lambda row: row.update(channel=row["channel"].replace("CAM_", "my_"))))
    assert look(drive) == ({}, "")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real key frame is not beside the repository")
def test_the_real_key_frame_is_not_odd():
    assert ingest(REAL, "v1.0-mini", IngestConfig())[2]["warnings"] == {}


START = 1_767_254_400_000_000  # us

FAULTS = {
    # damage -> (damage, file, field, words)
    "ego poses, w last": (edits("ego_pose", each(w_last)), "ego_pose", "rotation", "write quaternions as (w, x, y, z)"),
    "boxes, w last": (
        edits("sample_annotation", each(w_last)),
        "sample_annotation",
        "rotation",
        "as (x, y, z, w) 100%",
    ),
    "cameras, w last": (edits("calibrated_sensor", each(w_last)), "calibrated_sensor", "rotation", "of the cameras"),
    "ego poses in mm": (edits("ego_pose", scale("translation", 1000)), "ego_pose", "translation", "the ego drives at"),
    "all places in mm": (millimetres, "calibrated_sensor", "translation", "are they mm?"),
    "boxes in mm": (
        edits("sample_annotation", scale("translation", 1000)),
        "sample_annotation",
        "translation",
        "metres",
    ),
    "sizes in mm": (edits("sample_annotation", scale("size", 1000)), "sample_annotation", "size", "are they mm?"),
    "sizes in cm": (edits("sample_annotation", scale("size", 100)), "sample_annotation", "size", "are they cm?"),
    "ns": (times(1000), "sample", "timestamp", "these are ns since 1970"),
    "ns since the start": (times(1000, START), "sample_data", "timestamp", "are these ns?"),
    "ms": (times(1e-3), "sample", "timestamp", "write microseconds (are these ms"),
    "a pose of 1e308": (
        edits("ego_pose", lambda rows: rows[3].update(translation=[1e308, 0, 0])),
        "ego_pose",
        "translation",
        "1e+08 m",
    ),
    "a box of 1e300": (
        edits("sample_annotation", lambda rows: rows[3].update(size=[1e300, 1, 1])),
        "sample_annotation",
        "size",
        "100000 m",
    ),
    "a box at 1e300": (
        edits("sample_annotation", lambda rows: rows[3].update(translation=[1e300, 1, 1])),
        "sample_annotation",
        "translation",
        "1e+08 m",
    ),
    "a LiDAR on its side": (
        edits("calibrated_sensor", lambda rows: [turned(80, 1)(row) for row in rows if not row["camera_intrinsic"]]),
        "calibrated_sensor",
        "rotation",
        "LIDAR_TOP leans by 80 degrees",
    ),
    "a LiDAR upside down": (
        edits("calibrated_sensor", lambda rows: [turned(180, 1)(row) for row in rows if not row["camera_intrinsic"]]),
        "calibrated_sensor",
        "rotation",
        "LIDAR_TOP leans by 180 degrees",
    ),
    "cameras that look up": (
        edits(
            "calibrated_sensor",
            lambda rows: [
                row.update(rotation=[1, 0, 0, 0], translation=[0, 0, 90]) for row in rows if row["camera_intrinsic"]
            ],
        ),
        "calibrated_sensor",
        "-",
        "0% of the points",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_has_no_meaning_left_is_a_fault(drive, name):
    damage, file, field, words = FAULTS[name]
    damage(drive)
    _, report = look(drive)
    lines = [line.split(None, 2) for line in report.splitlines()[2:]]
    assert [line for line in lines if line[0] == f"v1.0-mini/{file}.json" and line[1] == field and words in line[2]], (
        report
    )
    assert len(lines) <= 3, report


WARNINGS = {
    # damage -> (damage, warning, words)
    "sizes in feet": (edits("sample_annotation", scale("size", 3.281)), "box_sizes", "are they feet?"),
    "sizes as length, width": (
        edits("sample_annotation", each(lambda row: row.update(size=[row["size"][i] for i in (1, 0, 2)]))),
        "box_axes",
        "size is (width, length, height)",
    ),
    "key frames every 10 s": (times(20, START), "key_frame_interval", "10 s lie between key frames"),
    "a slow minute": (times(20, START), "box_velocities", "only 0 of"),
    "a fast minute": (times(1 / 20, START), "box_speeds", "m/s, up to"),
    "an ego that races": (times(1 / 20, START), "ego_speed", "the ego drives at"),
    "old sweeps": (times(20, START), "sweep_age", "the nearest previous sweep is 5 s older than its key frame"),
    "cameras half a second late": (
        edits(
            "sample_data",
            lambda rows: [row.update(timestamp=row["timestamp"] + 450_000) for row in rows if "CAM" in row["filename"]],
        ),
        "camera_times",
        "0.426 s lie between",
    ),
    "an ego that drives sideways": (
        edits("ego_pose", each(turned(90))),
        "ego_heading",
        "degrees away from its x axis",
    ),
    "cameras exchanged": (edits("sensor", each(front_to_back)), "camera_axes", "CAM_FRONT looks to yaw 180"),
    "a LiDAR that leans": (
        edits("calibrated_sensor", lambda rows: [turned(50, 1)(row) for row in rows if not row["camera_intrinsic"]]),
        "lidar_upright",
        "LIDAR_TOP leans by 50 degrees",
    ),
    "a LiDAR that is turned": (
        edits("calibrated_sensor", lambda rows: [turned(45)(row) for row in rows if not row["camera_intrinsic"]]),
        "lidar_heading",
        "the y axis of LIDAR_TOP looks to yaw 45 in the ego frame, not ahead",
    ),
    "cameras upside down": (
        edits("calibrated_sensor", lambda rows: [turned(180)(row) for row in rows if row["camera_intrinsic"]]),
        "cameras_upright",
        "100% of the cameras lean",
    ),
    "images made smaller": (
        edits(
            "calibrated_sensor",
            lambda rows: [
                row.update(camera_intrinsic=(np.diag([2, 2, 1]) @ row["camera_intrinsic"]).tolist())
                for row in rows
                if row["camera_intrinsic"]
            ],
        ),
        "principal_point",
        "far from the middle of its 80x45 px image",
    ),
    "a sensor on a mast": (
        edits("calibrated_sensor", lambda rows: rows[0]["translation"].__setitem__(2, 15.0)),
        "sensor_places",
        "away from the ego's origin",
    ),
    "a box far off": (
        edits("sample_annotation", lambda rows: rows[5]["translation"].__setitem__(0, 9000.0)),
        "box_places",
        "1 of",
    ),
    "boxes elsewhere": (
        edits("sample_annotation", each(lambda row: row["translation"].__setitem__(2, row["translation"][2] + 9))),
        "points_in_boxes",
        "boxes that are said to hold five or more",
    ),
    "a box of 500 m": (
        edits("sample_annotation", lambda rows: rows[5].update(size=[2.0, 500.0, 2.0])),
        "longest_box",
        "1 of",
    ),
    "a scene of no split": (
        edits("scene", lambda rows: rows[0].update(name="mine")),
        "splits",
        "1 of 2 scenes are in no split",
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_is_odd_is_a_warning_with_its_value(drive, name):
    damage, warning, words = WARNINGS[name]
    damage(drive)
    odd, report = look(drive)
    assert report == ""
    assert words in odd[warning], odd
