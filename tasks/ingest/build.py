"""Tables without faults -> the arrays of the index, with the devkit's meanings, for all samples at once."""

from collections.abc import Mapping

import numpy as np

from dataroot.categories import labels_of
from dataroot.counts import lidar_points
from dataroot.links import Links, follow
from dataroot.selection import Selection
from dataroot.tables import Table
from dataroot.velocity import box_velocities
from models.geometry import heading, inverse, quaternion_to_rotation, rotation_z, transform, yaw_of

# Where a LiDAR would be on a car without one, (4, 4) to the ego: where nuScenes' is, its axes square to the car's. So
# what is said in its frame holds (a method's heights), and pictures look ahead. Detectors see in the ego's frame and do
# not notice: boxes go to this one and back by the same matrix.
STAND_IN = transform(rotation_z(-np.pi / 2), np.array([0.94, 0.0, 1.84]))


def build_arrays(
    tables: dict[str, Table],
    links: Links,
    selection: Selection,
    scene_split: np.ndarray,
    classes: Mapping[str, str],
) -> dict[str, np.ndarray]:
    """Every array of `storage.index.SCHEMA`. The tables must have passed all checks. classes: as in IngestConfig."""
    sample = tables["sample"]
    scene = links["sample", "scene_token"][selection.samples]
    place = np.full(sample.rows + 1, -1, np.int64)  # row in the table -> row in the index; the last stands for none
    place[selection.samples] = np.arange(len(selection.samples))
    lidar = _readings(tables, links, selection.posed)
    if selection.without_lidar:
        lidar["sensor_to_ego"] = np.broadcast_to(STAND_IN, (len(selection.samples), 4, 4))
    out = {
        "token": sample.text("token", selection.samples),
        "scene": scene,
        "scene_name": tables["scene"].text("name"),
        **_maps(tables, links),
        "timestamp": sample["timestamp"][selection.samples],
        "split": scene_split[scene],
        "previous": place[links["sample", "prev"][selection.samples]],
        "lidar_path": lidar["path"] if selection.lidar_files else np.full(len(selection.samples), "", object),
        "lidar_timestamp": lidar["timestamp"],
        "lidar_to_ego": lidar["sensor_to_ego"],
        "lidar_ego_to_global": lidar["ego_to_global"],
    }
    return (
        out
        | _sweeps(tables, links, selection, lidar)
        | _cameras(tables, links, selection)
        | _boxes(tables, links, selection, place, inverse(lidar["ego_to_global"] @ lidar["sensor_to_ego"]), classes)
    )


def _maps(tables: dict[str, Table], links: Links) -> dict[str, np.ndarray]:
    """The map mask and the location of each scene's log, "" where the scene names none."""
    log = links["scene", "log_token"]
    codes, targets = links.lists["map", "log_tokens"]
    paths, path_of = tables["map"].text("filename"), np.full(tables["log"].rows, "", object)
    for path, code in zip(paths, codes):
        path_of[targets[code]] = path
    return {
        "map_path": follow(log, path_of, ""),
        "map_location": follow(log, tables["log"].text("location"), ""),
    }


def _readings(tables: dict[str, Table], links: Links, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What the tables say of readings, by rows (...) of sample_data; blank, 0 and NaN where a row is none."""
    data, calibration, pose = tables["sample_data"], tables["calibrated_sensor"], tables["ego_pose"]
    there = rows >= 0
    calibrated = links["sample_data", "calibrated_sensor_token"][rows]
    posed = links["sample_data", "ego_pose_token"][rows]
    sensor_to_ego = transform(calibration["rotation"], calibration["translation"])[calibrated]
    ego_to_global = transform(pose["rotation"][posed], pose["translation"][posed])
    path = data.text("filename", rows)
    path[~there] = ""
    matrix = there[..., None, None]
    return {
        "path": path,
        "timestamp": np.where(there, data["timestamp"][rows], 0),
        "sensor_to_ego": np.where(matrix, sensor_to_ego, np.nan),
        "ego_to_global": np.where(matrix, ego_to_global, np.nan),
        "intrinsics": np.where(matrix, calibration["camera_intrinsic"][calibrated], np.nan),
        "size": np.stack([data["width"][rows], data["height"][rows]], -1),
    }


def _sweeps(
    tables: dict[str, Table], links: Links, selection: Selection, lidar: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    sweep = _readings(tables, links, selection.sweeps)
    global_to_lidar = inverse(lidar["ego_to_global"] @ lidar["sensor_to_ego"])  # (S, 4, 4)
    return {
        "sweep_count": (selection.sweeps >= 0).sum(1),
        "sweep_path": sweep["path"],
        "sweep_timestamp": sweep["timestamp"],
        "sweep_to_lidar": global_to_lidar[:, None] @ (sweep["ego_to_global"] @ sweep["sensor_to_ego"]),
    }


def _cameras(tables: dict[str, Table], links: Links, selection: Selection) -> dict[str, np.ndarray]:
    camera = _readings(tables, links, selection.cameras)
    frame = _readings(tables, links, selection.frames)
    return {
        "camera_path": camera["path"],
        "camera_timestamp": camera["timestamp"],
        "intrinsics": camera["intrinsics"],
        "camera_to_ego": camera["sensor_to_ego"],
        "camera_ego_to_global": camera["ego_to_global"],
        "image_size": camera["size"],
        "frame_count": (selection.frames >= 0).sum(2),
        "frame_path": frame["path"],
        "frame_timestamp": frame["timestamp"],
        "frame_intrinsics": frame["intrinsics"],
        "frame_camera_to_ego": frame["sensor_to_ego"],
        "frame_ego_to_global": frame["ego_to_global"],
    }


def _boxes(
    tables: dict[str, Table],
    links: Links,
    selection: Selection,
    place: np.ndarray,
    global_to_lidar: np.ndarray,
    classes: Mapping[str, str],
) -> dict[str, np.ndarray]:
    """Annotations by sample, in the order of the table, moved to the sample's LiDAR frame as `Boxes.moved` does."""
    box = tables["sample_annotation"]
    sample = place[links["sample_annotation", "sample_token"]]
    order = np.argsort(sample, kind="stable")
    order = order[sample[order] >= 0]  # those of samples that the index has
    to_lidar = global_to_lidar[sample[order]]  # (N, 4, 4)
    turn = to_lidar[:, :3, :3]
    yaw = yaw_of(quaternion_to_rotation(box["rotation"][order]))
    ahead = _rotated(turn, np.stack([np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)], -1))
    velocity = box_velocities(tables, links)[order] * [1, 1, 0]

    instance = links["sample_annotation", "instance_token"][order]
    category = links["instance", "category_token"][instance]
    names = tables["category"].text("name")
    codes, targets = links.lists["sample_annotation", "attribute_tokens"]
    attribute_names = tables["attribute"].text("name")
    attributes = np.array([attribute_names[rows[0]] if rows else "" for rows in targets], object)
    return {
        "box_offsets": np.searchsorted(sample[order], np.arange(len(selection.samples) + 1)),
        "box_center": _rotated(turn, box["translation"][order]) + to_lidar[:, :3, 3],
        "box_size": box["size"][order][:, [1, 0, 2]],
        "box_yaw": heading(ahead),
        "box_velocity": _rotated(turn, velocity)[:, :2],
        "box_label": labels_of(names, classes)[category],
        "box_lidar_points": lidar_points(box, selection)[order],
        "box_radar_points": box["num_radar_pts"][order],
        "box_visibility": _visibility(box["visibility_token"][order]),
        "box_token": box.text("token", order),
        "box_instance": tables["instance"].text("token", instance),
        "box_category": names[category],
        "box_attribute": attributes[codes[order]],
    }


def _rotated(turn: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(N, 3): each vector turned by its own rotation (N, 3, 3)."""
    return np.einsum("nij,nj->ni", turn, vectors)


def _visibility(tokens: np.ndarray) -> np.ndarray:
    """1 (to 40% visible) to 4 (over 80%): in nuScenes the token itself; 0 where it says nothing of the kind."""
    out = np.zeros(len(tokens), np.int64)
    for level in (1, 2, 3, 4):
        out[tokens == str(level).encode()] = level
    return out
