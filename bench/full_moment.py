"""One sample of each simulated scene, its files at nuScenes' size: what `full_world.py` makes its scenes of."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataroot.names import TABLES
from models.geometry import quaternion_to_rotation, yaw_of
from models.names import LIDAR

POINTS, SIZE = 34_688, (1600, 900)  # of a cloud; of an image


@dataclass(frozen=True)
class Moment:
    """One sample of a simulated scene; boxes (N) in its ego frame."""

    files: dict[str, Path]  # channel -> its file
    calibrations: dict[str, dict[str, Any]]
    boxes: list[dict[str, Any]]  # category, attributes, visibility, size, points, as the tables say
    center: np.ndarray  # (N, 3)
    yaw: np.ndarray  # (N,)


def moments(world: Path, store: Path) -> list[Moment]:
    """The middle sample of each scene of a simulated world, its files at nuScenes' size in `store`."""
    folder = next(world.glob("v*/sample.json")).parent
    tables = {name: json.loads((folder / f"{name}.json").read_text()) for name in TABLES}
    by = {name: {row["token"]: row for row in rows} for name, rows in tables.items()}
    channel_of = {row["token"]: by["sensor"][row["sensor_token"]]["channel"] for row in tables["calibrated_sensor"]}
    out = []
    for number, scene in enumerate(tables["scene"]):
        samples = [row for row in tables["sample"] if row["scene_token"] == scene["token"]]
        sample = samples[len(samples) // 2]["token"]
        keys = {
            channel_of[row["calibrated_sensor_token"]]: row
            for row in tables["sample_data"]
            if row["sample_token"] == sample and row["is_key_frame"]
        }
        files = {c: _at_full_size(world / row["filename"], store, f"{number}-{c}") for c, row in keys.items()}
        pose = by["ego_pose"][keys[LIDAR]["ego_pose_token"]]
        turn = quaternion_to_rotation(np.array(pose["rotation"]))
        found = [row for row in tables["sample_annotation"] if row["sample_token"] == sample]
        center = (np.array([row["translation"] for row in found]) - pose["translation"]) @ turn
        yaw = yaw_of(turn.T @ quaternion_to_rotation(np.array([row["rotation"] for row in found])))
        calibrations = {c: _calibration(by, row) for c, row in keys.items()}
        boxes = [
            {
                "category": by["category"][by["instance"][row["instance_token"]]["category_token"]]["name"],
                "attributes": [by["attribute"][token]["name"] for token in row["attribute_tokens"]],
                **{key: row[key] for key in ("visibility_token", "size", "num_lidar_pts", "num_radar_pts")},
            }
            for row in found
        ]
        out.append(Moment(files, calibrations, boxes, center, yaw))
    return out


def _at_full_size(file: Path, store: Path, name: str) -> Path:
    store.mkdir(parents=True, exist_ok=True)
    out = store / f"{name}{file.suffix}"
    if file.suffix == ".jpg":
        Image.open(file).resize(SIZE).save(out, quality=90)
    else:
        points = np.fromfile(file, np.float32).reshape(-1, 5)
        np.resize(points, (POINTS, 5)).tofile(out)
    return out


def _calibration(by: dict[str, dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
    """A row of calibrated_sensor, intrinsics those of an image of SIZE."""
    known = by["calibrated_sensor"][row["calibrated_sensor_token"]]
    intrinsics = known["camera_intrinsic"]
    if intrinsics:
        scale = np.array([[SIZE[0] / row["width"]], [SIZE[1] / row["height"]], [1]])
        intrinsics = (np.array(intrinsics) * scale).tolist()
    return {key: known[key] for key in ("translation", "rotation")} | {"camera_intrinsic": intrinsics}
