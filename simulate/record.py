"""Drives through one scene: writes its images, sweeps, occupancy and map, and returns its records for the tables."""

from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from dataroot.records import Records, chain, pose_fields, token, visibility_token
from models.boxes import Boxes
from models.geometry import apply, inverse
from models.names import LIDAR
from models.occupancy import occupancy_path
from simulate.cast import cast_camera, cast_lidar
from simulate.config import SimulateConfig
from simulate.occupancy import Eye, camera_mask, labels_file, lidar_mask, voxel_labels
from simulate.rig import LIDAR_TO_EGO, RIG, image_size, lidar_directions
from simulate.scenes import scenes_of
from simulate.shade import shade
from simulate.town import DRIVABLE
from simulate.world import KEYFRAME_PERIOD, World

JPEG_QUALITY = 92
CAMERA_FRAMES = 6  # camera frames from one key frame to the next (12 Hz), the key frame's included
ANNOTATED_RANGE = 60.0  # m from the ego
FORGOTTEN = 3  # key frames; the devkit knows no velocity over more than 1.5 s
RANGE_NOISE, RANGE_NOISE_LIMIT = 0.005, 0.008  # m; the limit keeps points within the box, INSET outside the surface
INTENSITY_NOISE = 0.08
_FIRST_START = 1767254400_000_000  # us: 2026-01-01 08:00 UTC; each scene starts an hour after the one before


def record_scene(config: SimulateConfig, name: str, out: Path) -> Records:
    """Writes all files of one scene below `out` and returns its records."""
    return _Drive(config, name, out).records()


class _Drive:
    def __init__(self, config: SimulateConfig, name: str, out: Path):
        self.config, self.name, self.out = config, name, out
        self.world = World(config, name)
        self.number = scenes_of(config.scenes).names.index(name)
        self.start = _FIRST_START + self.number * 3600_000_000
        start = datetime.fromtimestamp(self.start / 1e6, UTC)
        self.log = f"n000-{start:%Y-%m-%d-%H-%M-%S%z}"
        self.size = image_size(config.image_scale)
        self.directions = lidar_directions()
        actors = len(self.world.actors)
        self.points = np.zeros((config.keyframes, actors), np.int64)  # LiDAR points in each box
        self.in_view = np.zeros((config.keyframes, 2, actors), np.int64)  # rays: unoccluded, visible; all cameras

    def records(self) -> Records:
        out: Records = defaultdict(list)
        out["log"].append(
            {
                "token": token(self.name, "log"),
                "logfile": self.log,
                "vehicle": "n000",
                "date_captured": self.log[5:15],
                "location": f"simulated-{self.name}",
            }
        )
        out["map"].append(self._map())
        out["scene"].append(
            {
                "token": token(self.name),
                "log_token": token(self.name, "log"),
                "nbr_samples": self.config.keyframes,
                "first_sample_token": self._sample(0),
                "last_sample_token": self._sample(self.config.keyframes - 1),
                "name": self.name,
                "description": "simulated: a street with a bend, a building site and a yard",
            }
        )
        out["sample"] = chain(
            [
                {
                    "token": self._sample(k),
                    "timestamp": self.start + _microseconds(k * KEYFRAME_PERIOD),
                    "prev": "",
                    "next": "",
                    "scene_token": token(self.name),
                }
                for k in range(self.config.keyframes)
            ]
        )
        self._sensor(out, LIDAR, LIDAR_TO_EGO, None, 0.0, round(self.config.lidar_rate * KEYFRAME_PERIOD))
        for camera in RIG:
            frames = CAMERA_FRAMES if self.config.camera_sweeps else 1
            self._sensor(out, camera.name, camera.to_ego(), camera.intrinsics(self.size), camera.delay, frames)
        self._annotations(out)
        return dict(out)

    def _sample(self, k: int) -> str:
        return token(self.name, "sample", k)

    def _map(self) -> dict:
        self_token = token(self.name, "map")
        path = self.out / "maps" / f"{self_token}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        # The devkit's masks have their last row at y = 0.
        drivable = self.world.town.ground.label[::-1] == DRIVABLE
        Image.fromarray(drivable.astype(np.uint8) * 255).save(path, compress_level=6)
        return {
            "category": "semantic_prior",
            "token": self_token,
            "filename": f"maps/{path.name}",
            "log_tokens": [token(self.name, "log")],
        }

    def _sensor(self, out: Records, channel: str, to_ego, intrinsics, delay: float, per_key: int) -> None:
        """All frames of one sensor: `per_key` from each key frame to the next."""
        calibration = token(self.name, "calibrated_sensor", channel)
        out["calibrated_sensor"].append(
            {
                "token": calibration,
                "sensor_token": token("sensor", channel),
                **pose_fields(to_ego),
                "camera_intrinsic": [] if intrinsics is None else intrinsics.tolist(),
            }
        )
        lidar = channel == LIDAR
        frames = []
        for i in range((self.config.keyframes - 1) * per_key + 1):
            key, between = divmod(i, per_key)
            is_key = between == 0
            offset = _microseconds(key * KEYFRAME_PERIOD + between * KEYFRAME_PERIOD / per_key + delay)
            t, stamp = offset * 1e-6, self.start + offset
            folder = "samples" if is_key else "sweeps"
            path = f"{folder}/{channel}/{self.log}__{channel}__{stamp}.{'pcd.bin' if lidar else 'jpg'}"
            ego_to_global = self.world.ego_to_global(t)
            keyframe = key if is_key else None
            payload = (
                self._sweep(t, i, ego_to_global @ to_ego, keyframe)
                if lidar
                else self._picture(t, ego_to_global @ to_ego, intrinsics, keyframe)
            )
            (self.out / path).parent.mkdir(parents=True, exist_ok=True)
            (self.out / path).write_bytes(payload)
            frame = token(self.name, channel, i)
            out["ego_pose"].append({"token": frame, "timestamp": stamp, **pose_fields(ego_to_global)})
            frames.append(
                {
                    "token": frame,
                    "sample_token": self._sample(key + (2 * between >= per_key)),  # the key frame nearest in time
                    "ego_pose_token": frame,
                    "calibrated_sensor_token": calibration,
                    "timestamp": stamp,
                    "fileformat": "pcd" if lidar else "jpg",
                    "is_key_frame": is_key,
                    "height": 0 if lidar else self.size[1],
                    "width": 0 if lidar else self.size[0],
                    "filename": path,
                    "prev": "",
                    "next": "",
                }
            )
        out["sample_data"].extend(chain(frames))

    def _sweep(self, t: float, i: int, lidar_to_global: np.ndarray, keyframe: int | None) -> bytes:
        rng = np.random.default_rng([self.config.seed, self.number, i])
        noise = rng.standard_normal((*self.directions.shape[:2], 2))
        noise[..., 0] = np.clip(RANGE_NOISE * noise[..., 0], -RANGE_NOISE_LIMIT, RANGE_NOISE_LIMIT)
        noise[..., 1] = np.maximum(1 + INTENSITY_NOISE * noise[..., 1], 0)
        ground = self.world.town.ground
        points = cast_lidar(
            self.world.solids(t), lidar_to_global, self.directions, ground, noise, self.config.lidar_reach
        )
        if keyframe is not None:
            placed = apply(lidar_to_global, points[:, :3].astype(np.float64))
            self.points[keyframe] = _count_inside(self.world.boxes(t), placed)
            if self.config.occupancy:
                self._occupancy(t, keyframe, apply(LIDAR_TO_EGO, points[:, :3].astype(np.float64)))
        return points.tobytes()

    def _occupancy(self, t: float, k: int, points: np.ndarray) -> None:
        """Writes the occupancy of key frame k; points (N, 3): its sweep in the ego frame."""
        world, ego_to_global = self.world, self.world.ego_to_global(t)
        labels = voxel_labels(world.solids(t), ego_to_global, world.town.ground)
        cameras = [
            Eye(
                inverse(ego_to_global) @ world.ego_to_global(t + camera.delay) @ camera.to_ego(),
                camera.intrinsics(self.size),
                np.array(self.size),
            )
            for camera in RIG
        ]
        path = self.out / occupancy_path(self.name, self._sample(k))
        path.parent.mkdir(parents=True, exist_ok=True)
        lidar = lidar_mask(LIDAR_TO_EGO[:3, 3], points)
        path.write_bytes(labels_file(labels, camera_mask(labels, cameras), lidar))

    def _picture(self, t: float, camera_to_global, intrinsics, keyframe: int | None) -> bytes:
        world = self.world
        solids = world.solids(t)
        view = cast_camera(solids, camera_to_global, intrinsics, self.size, len(world.actors))
        if keyframe is not None:
            self.in_view[keyframe] += view.alone, view.visible
        image = shade(view, solids, camera_to_global, intrinsics, world.town.ground, world.shadows(t), world.light)
        return simplejpeg.encode_jpeg(image, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="420")

    def _annotations(self, out: Records) -> None:
        """Annotations of each object in the key frames in which the LiDAR met it within range.

        An object that comes back after more than FORGOTTEN key frames is a new instance, and one met only once is left
        out: so every velocity that the devkit derives is known.
        """
        times = [k * KEYFRAME_PERIOD for k in range(self.config.keyframes)]
        boxes = [self.world.boxes(t) for t in times]
        ego = np.stack([self.world.ego_to_global(t)[:2, 3] for t in times])
        distance = np.linalg.norm(np.stack([b.centers[:, :2] for b in boxes]) - ego[:, None], axis=-1)
        met = (self.points > 0) & (distance < ANNOTATED_RANGE)
        for i, actor in enumerate(self.world.actors):
            visible = np.flatnonzero(met[:, i])
            for run in np.split(visible, np.flatnonzero(np.diff(visible) > FORGOTTEN) + 1):
                if len(run) < 2:
                    continue
                instance = token(self.name, "instance", i, run[0])
                records = chain([self._annotation(i, k, boxes[k], instance) for k in run.tolist()])
                out["sample_annotation"].extend(records)
                out["instance"].append(
                    {
                        "token": instance,
                        "category_token": token("category", actor.category),
                        "nbr_annotations": len(records),
                        "first_annotation_token": records[0]["token"],
                        "last_annotation_token": records[-1]["token"],
                    }
                )

    def _annotation(self, i: int, k: int, boxes: Boxes, instance: str) -> dict:
        """The record of actor i in key frame k."""
        alone, visible = self.in_view[k, :, i]
        attribute = self.world.actors[i].attribute
        return {
            "token": token(self.name, "annotation", i, k),
            "sample_token": self._sample(k),
            "instance_token": instance,
            "visibility_token": visibility_token(visible / max(alone, 1)),
            "attribute_tokens": [token("attribute", attribute)] if attribute else [],
            "translation": boxes.centers[i].tolist(),
            "size": boxes.sizes_wlh()[i].tolist(),
            "rotation": boxes.quaternions()[i].tolist(),
            "prev": "",
            "next": "",
            "num_lidar_pts": int(self.points[k, i]),
            "num_radar_pts": 0,
        }


def _count_inside(boxes: Boxes, points: np.ndarray) -> np.ndarray:
    """(N,) points (P, 3) inside each box, looking only at those within reach of it."""
    reach = np.linalg.norm(boxes.sizes, axis=1) / 2
    out = np.zeros(len(boxes), np.int64)
    for i, (x, y, _) in enumerate(boxes.centers):
        near = (np.abs(points[:, 0] - x) <= reach[i]) & (np.abs(points[:, 1] - y) <= reach[i])
        out[i] = boxes[i : i + 1].contains(points[near]).sum()
    return out


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
