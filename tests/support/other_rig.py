"""A simulated world as another car would have recorded it: other cameras, other image sizes, a LiDAR that is turned."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from models.geometry import quaternion_to_rotation, rotation_to_quaternion, rotation_z
from models.names import CAMERAS, LIDAR

VERSION = "v1.0-mini"
RESIZED = 0.5
# Five cameras, most under names of their own; that at the front has images of RESIZED. CAM_BACK is gone.
FIVE = {
    "CAM_FRONT": ["front half"],
    "CAM_FRONT_RIGHT": ["CAM_FRONT_RIGHT"],
    "CAM_FRONT_LEFT": ["07-left"],
    "CAM_BACK_LEFT": ["RingRearLeft"],
    "CAM_BACK_RIGHT": ["ring_rear_right"],
}
FIVE_IN_ORDER = ("CAM_FRONT_RIGHT", "07-left", "RingRearLeft", "front half", "ring_rear_right")
SMALL = ("front half",)


def turn(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """A rotation (3, 3) by angles in degrees, about z, then y, then x."""
    half = np.deg2rad([pitch, roll]) / 2
    about_y = quaternion_to_rotation(np.array([np.cos(half[0]), 0, np.sin(half[0]), 0]))
    about_x = quaternion_to_rotation(np.array([np.cos(half[1]), np.sin(half[1]), 0, 0]))
    return rotation_z(np.deg2rad(yaw)) @ about_y @ about_x


def rewrite(
    source: Path,
    target: Path,
    cameras: Mapping[str, Sequence[str]],
    small: Sequence[str] = (),
    mounted: np.ndarray | None = None,
) -> Path:
    """Write the world `source` to `target`, and return that.

    cameras: old channel -> the new ones that show the same; a camera that is not named is gone. small: new channels of
    which the images are RESIZED. mounted: (3, 3), the LiDAR's new axes in its old frame.
    """
    tables = {path.stem: json.loads(path.read_text()) for path in (source / VERSION).glob("*.json")}
    channel_of = {row["token"]: row["channel"] for row in tables["sensor"]}
    calibrated = {row["token"]: channel_of[row["sensor_token"]] for row in tables["calibrated_sensor"]}
    new = {name: list(cameras.get(name, [])) for name in CAMERAS} | {LIDAR: [LIDAR]}

    def copies(rows: list[dict], channel: Mapping[str, str], links: Sequence[str]) -> list[tuple[str, dict]]:
        """(new channel, row) of each row; those of a second camera have tokens of their own."""
        out = []
        for row in rows:
            for number, name in enumerate(new[channel[row["token"]]]):
                ends = {link: row[link] + f"-{number}" for link in ("token", *links) if number and row[link]}
                out.append((name, row | ends))
        return out

    data_channel = {row["token"]: calibrated[row["calibrated_sensor_token"]] for row in tables["sample_data"]}
    sensors = copies(tables["sensor"], channel_of, ())
    calibrations = copies(tables["calibrated_sensor"], calibrated, ("sensor_token",))
    data = copies(tables["sample_data"], data_channel, ("calibrated_sensor_token", "prev", "next"))
    for name, row in sensors:
        row["channel"] = name
    for name, row in calibrations:
        if name == LIDAR and mounted is not None:
            row["rotation"] = rotation_to_quaternion(quaternion_to_rotation(row["rotation"]) @ mounted).tolist()
        if name in small:
            row["camera_intrinsic"] = (np.diag([RESIZED, RESIZED, 1]) @ row["camera_intrinsic"]).tolist()
    for name, row in data:
        old = source / row["filename"]
        row["filename"] = f"{row['filename'].split('/')[0]}/{name}/{old.name}"
        path = target / row["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in small:
            row |= {"width": round(row["width"] * RESIZED), "height": round(row["height"] * RESIZED)}
            Image.open(old).resize((row["width"], row["height"])).save(path, quality=95)
        elif name == LIDAR and mounted is not None:
            points = np.fromfile(old, np.float32).reshape(-1, 5)
            points[:, :3] = points[:, :3].astype(np.float64) @ mounted
            points.tofile(path)
        else:
            path.symlink_to(old)
    tables |= {
        "sensor": [row for _, row in sensors],
        "calibrated_sensor": [row for _, row in calibrations],
        "sample_data": [row for _, row in data],
    }
    (target / VERSION).mkdir(parents=True)
    for name, rows in tables.items():
        (target / VERSION / f"{name}.json").write_text(json.dumps(rows))
    for name in ("maps", "gts"):
        if (source / name).exists():
            (target / name).symlink_to(source / name)
    shutil.copy(source / "simulated.json", target)
    return target


def without_lidar(source: Path, target: Path) -> Path:
    """Write the world `source` to `target` as a car without a LiDAR would have recorded it, and return that: its boxes
    are there, and nobody counted points in them."""
    tables = {path.stem: json.loads(path.read_text()) for path in (source / VERSION).glob("*.json")}
    gone = {row["token"] for row in tables["sensor"] if row["channel"] == LIDAR}
    gone |= {row["token"] for row in tables["calibrated_sensor"] if row["sensor_token"] in gone}
    tables["sample_data"] = [row for row in tables["sample_data"] if row["calibrated_sensor_token"] not in gone]
    posed = {row["ego_pose_token"] for row in tables["sample_data"]}
    for name in ("sensor", "calibrated_sensor"):
        tables[name] = [row for row in tables[name] if row["token"] not in gone]
    tables["ego_pose"] = [row for row in tables["ego_pose"] if row["token"] in posed]
    for row in tables["sample_annotation"]:
        row["num_lidar_pts"] = row["num_radar_pts"] = 0
    (target / VERSION).mkdir(parents=True)
    for name, rows in tables.items():
        (target / VERSION / f"{name}.json").write_text(json.dumps(rows))
    for row in tables["sample_data"]:
        path = target / row["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(source / row["filename"])
    (target / "maps").symlink_to(source / "maps")
    return target
