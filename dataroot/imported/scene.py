"""One log of py123d's as one scene: writes its images and sweeps, and returns its records for the tables."""

from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from dataroot.imported.labels import category_of
from dataroot.imported.log import Box, Camera, Log, Row
from dataroot.records import Records, chain, pose_fields, token
from models.geometry import apply, quaternion_to_rotation
from models.names import LIDAR

MAP = token("map")  # no map is imported: all logs share a blank mask, without which the devkit opens nothing
EGO = "EGO"  # a label of the car itself


def import_log(log: Log, out: Path, rate: float) -> tuple[Records, dict]:
    """Write all files of a log below `out`; its records, and what there is to say: labels' boxes, sensors.

    rate: key frames a second. Raises DataError where something of it cannot be read.
    """
    return _Scene(log, out, rate).written()


class _Scene:
    def __init__(self, log: Log, out: Path, rate: float):
        self.log, self.out = log, out
        self.keys = log.key_rows(rate)
        self.key_times = np.array([key.time for key in self.keys])
        self.records: Records = defaultdict(list)

    def written(self) -> tuple[Records, dict]:
        log, start = self.log, datetime.fromtimestamp(self.keys[0].time / 1e6, UTC)
        self.records["log"] = [
            {
                "token": self._token("log"),
                "logfile": log.name,
                "vehicle": log.dataset,
                "date_captured": f"{start:%Y-%m-%d}",
                "location": log.location,
            }
        ]
        self.records["scene"] = [
            {
                "token": self._token("scene"),
                "log_token": self._token("log"),
                "nbr_samples": len(self.keys),
                "first_sample_token": self._sample(0),
                "last_sample_token": self._sample(len(self.keys) - 1),
                "name": log.name,
                "description": f"{log.dataset}, {log.split}, imported by geomim",
            }
        ]
        self.records["sample"] = chain(
            [
                {
                    "token": self._sample(k),
                    "timestamp": key.time,
                    "prev": "",
                    "next": "",
                    "scene_token": self._token("scene"),
                }
                for k, key in enumerate(self.keys)
            ]
        )
        inside = self._sweeps()
        for camera in log.cameras:
            self._images(camera)
        boxes = self._annotations(inside)
        return dict(self.records), {
            "split": log.split,
            "boxes": boxes,
            "lidars": list(log.lidars),
            "undistorted": [c.channel for c in log.cameras if c.distortion is not None],
            "left_out": log.left_out,
        }

    def _token(self, *names: object) -> str:
        return token(self.log.dataset, self.log.name, *names)

    def _sample(self, k: int) -> str:
        return self._token("sample", k)

    def _sweeps(self) -> list[tuple[list[Box], np.ndarray]]:
        """All sweeps up to the last key frame. Returns each key frame's boxes, and the points in each of them."""
        keys = {key.number: k for k, key in enumerate(self.keys)}
        calibration = self._calibration(LIDAR, self.log.lidar_to_ego, [])
        frames, inside = [], []
        for row in self.log.rows:
            if row.number > self.keys[-1].number:
                break
            points, k = self.log.points(row), keys.get(row.number)
            if k is not None:
                boxes = [box for box in self.log.boxes(row) if box.label != EGO]
                lidar_to_global = row.ego_to_global @ self.log.lidar_to_ego
                inside.append((boxes, count_inside(boxes, apply(lidar_to_global, points[:, :3].astype(np.float64)))))
            pose = row.ego_to_global
            frames.append(self._frame(LIDAR, calibration, row.time, pose, k is not None, points.tobytes(), (0, 0)))
        self.records["sample_data"] += chain(frames)
        return inside

    def _images(self, camera: Camera) -> None:
        """Those of the key frames."""
        calibration = self._calibration(camera.channel, camera.to_ego, camera.intrinsics.tolist())
        frames = []
        for key in self.keys:
            data, pose = self.log.image(key, camera), self.log.camera_pose(key, camera)
            time = key.image_times[camera.channel]
            frames.append(
                self._frame(camera.channel, calibration, time, pose, True, data, camera.size, self._of_key(key))
            )
        self.records["sample_data"] += chain(frames)

    def _of_key(self, key: Row) -> int:
        return int(np.searchsorted(self.key_times, key.time))

    def _calibration(self, channel: str, to_ego: np.ndarray, intrinsics: list) -> str:
        name = self._token("calibrated_sensor", channel)
        self.records["calibrated_sensor"].append(
            {
                "token": name,
                "sensor_token": token("sensor", channel),
                **pose_fields(to_ego),
                "camera_intrinsic": intrinsics,
            }
        )
        return name

    def _frame(
        self,
        channel: str,
        calibration: str,
        time: int,
        ego_to_global: np.ndarray,
        is_key: bool,
        data: bytes,
        size: tuple[int, int],
        k: int | None = None,
    ) -> dict:
        """Writes one reading's file and pose, and returns its record. k: of its key frame, by default the nearest."""
        if k is None:
            k = int(np.abs(self.key_times - time).argmin())
        folder, kind = "samples" if is_key else "sweeps", "pcd" if channel == LIDAR else "jpg"
        ending = "pcd.bin" if channel == LIDAR else "jpg"
        path = f"{folder}/{channel}/{self.log.name}__{channel}__{time}.{ending}"
        (self.out / path).parent.mkdir(parents=True, exist_ok=True)
        (self.out / path).write_bytes(data)
        frame = self._token(channel, time)
        self.records["ego_pose"].append({"token": frame, "timestamp": time, **pose_fields(ego_to_global)})
        return {
            "token": frame,
            "sample_token": self._sample(k),
            "ego_pose_token": frame,
            "calibrated_sensor_token": calibration,
            "timestamp": time,
            "fileformat": kind,
            "is_key_frame": is_key,
            "height": size[1],
            "width": size[0],
            "filename": path,
            "prev": "",
            "next": "",
        }

    def _annotations(self, inside: list[tuple[list[Box], np.ndarray]]) -> dict[str, int]:
        """The annotations of all key frames, a track and label an instance. Returns boxes by label."""
        of: dict[tuple[str, str], list[dict]] = defaultdict(list)
        for k, (boxes, points) in enumerate(inside):
            for box, count in zip(boxes, points.tolist()):
                of[box.track, box.label].append(self._annotation(k, box, count))
        for (track, label), records in of.items():
            self.records["sample_annotation"] += chain(records)
            self.records["instance"].append(
                {
                    "token": self._token("instance", track, label),
                    "category_token": token("category", category_of(label)),
                    "nbr_annotations": len(records),
                    "first_annotation_token": records[0]["token"],
                    "last_annotation_token": records[-1]["token"],
                }
            )
        return dict(Counter(box.label for boxes, _ in inside for box in boxes))

    def _annotation(self, k: int, box: Box, points: int) -> dict:
        return {
            "token": self._token("annotation", box.track, box.label, k),
            "sample_token": self._sample(k),
            "instance_token": self._token("instance", box.track, box.label),
            "visibility_token": "",  # not known
            "attribute_tokens": [],
            "translation": box.center.tolist(),
            "size": box.size[[1, 0, 2]].tolist(),
            "rotation": box.rotation.tolist(),
            "prev": "",
            "next": "",
            "num_lidar_pts": points,
            "num_radar_pts": 0,
        }


def count_inside(boxes: list[Box], points: np.ndarray) -> np.ndarray:
    """(len(boxes),) points (P, 3) of the global frame inside or on each box."""
    out = np.zeros(len(boxes), np.int64)
    for i, box in enumerate(boxes):
        near = points[(np.abs(points - box.center) <= np.linalg.norm(box.size) / 2).all(1)]
        local = (near - box.center) @ quaternion_to_rotation(box.rotation)
        out[i] = (np.abs(local) <= box.size / 2).all(1).sum()
    return out
