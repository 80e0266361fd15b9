"""One log in py123d's format, in this project's terms: when its sensors measured, where they were, and what they saw.

py123d keeps points in the frame of the car's IMU and boxes in the global one. Here the ego is the rear axle, as it is
nuScenes', and the LiDAR's frame stands where the (main) LiDAR is mounted, with nuScenes' axes: x right, y ahead, z up.
A row of a log's sync table is what it holds together: a sweep, the ego pose at which its points lie, boxes and images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from common.errors import DataError
from models.geometry import apply, inverse, rotation_z, transform

JPEG_QUALITY = 95  # of images that are not JPEGs yet, or whose distortion is taken out
FEWEST_IMAGES = 0.25  # of a log's rows that an image of a camera is needed in, or it is left out
SYNC = "sync.arrow"  # what makes a folder a log


@dataclass(frozen=True)
class Camera:
    """A pinhole camera of a log."""

    channel: str
    key: Any  # py123d's id
    size: tuple[int, int]  # (width, height) px
    intrinsics: np.ndarray  # (3, 3)
    to_ego: np.ndarray  # (4, 4)
    distortion: np.ndarray | None  # (5,) k1, k2, p1, p2, k3; None where its images have none


@dataclass(frozen=True)
class Row:
    """What a log holds at one time. `image_times` names the cameras that have an image there."""

    number: int
    time: int  # us, of the ego pose, at which the sweep's points lie
    ego_to_global: np.ndarray  # (4, 4)
    boxes: bool  # whether boxes are annotated here
    image_times: dict[str, int]  # channel -> us


@dataclass(frozen=True)
class Box:
    """One object at one time, in the global frame."""

    track: str
    label: str  # py123d's name of it
    center: np.ndarray  # (3,) m
    size: np.ndarray  # (3,) m, length, width, height
    rotation: np.ndarray  # (4,) wxyz


class Log:
    """A log's folder, opened. Raises DataError where it cannot be made a scene of."""

    def __init__(self, folder: Path):
        from py123d.api.scene.arrow.arrow_scene_api import ArrowSceneAPI
        from py123d.datatypes import ModalityType

        self.folder, self.left_out = folder, list[str]()  # of the log, what is not taken
        self._types = ModalityType
        try:
            self._log = ArrowSceneAPI(folder)
            metadata = self._log.get_log_metadata()
            modalities = self._log.get_all_modality_metadatas()
            self._rows = self._log.number_of_iterations
        except Exception as error:  # py123d's own are of any kind
            told = f"{folder}: cannot be read by py123d ({_told(error)})"
            raise DataError(f"{told}; convert it once more, or leave it out with --leave-out {folder.name}") from None
        self.name, self.split = folder.name, metadata.split
        self.dataset, self.location = metadata.dataset, metadata.location or metadata.dataset
        ego = self._log.get_ego_state_se3_metadata()
        lidars = [m for m in modalities.values() if m.modality_type == ModalityType.LIDAR]
        self._lack(ego, "ego poses")
        self._lack(lidars, "a LiDAR")
        self._ego_to_imu = _matrix(ego.rear_axle_to_imu_se3)
        self._annotated = self._log.get_box_detections_se3_metadata() is not None
        self._choose_lidar(lidars)
        self.cameras = [c for m in self._log.get_camera_metadatas().values() if (c := self._camera(m))]
        self._lack(self.cameras, "a pinhole camera")
        self.rows = [row for number in range(self._rows) if (row := self._row(number))]
        self._drop_rare_cameras()

    def _lack(self, there: Any, what: str) -> None:
        if not there:
            raise DataError(f"{self.folder}: is a log without {what}; leave it out with --leave-out {self.name}")

    def _choose_lidar(self, lidars: list[Any]) -> None:
        """Of merged LiDARs all points, in the main one's frame; of separate ones the main one's alone."""
        from py123d.datatypes import LidarID, LidarMergedMetadata

        def main(by_id: dict[Any, Any]) -> Any:
            return by_id.get(LidarID.LIDAR_TOP) or next(iter(by_id.values()))

        merged = [m for m in lidars if isinstance(m, LidarMergedMetadata)]
        if merged:
            several = dict(merged[0])
            self._lack(several, "a LiDAR")
            self._lidar, mounted = merged[0].modality_id, main(several)
            self.lidars = tuple(m.lidar_name for m in several.values())
        else:
            mounted = main({m.lidar_id: m for m in lidars})
            self._lidar, self.lidars = mounted.modality_id, (mounted.lidar_name,)
            self.left_out += [f"LiDAR {m.lidar_name}" for m in lidars if m is not mounted]
        place = inverse(self._ego_to_imu) @ _matrix(mounted.lidar_to_imu_se3)
        self.lidar_to_ego = transform(rotation_z(-np.pi / 2), place[:3, 3])

    def _camera(self, metadata: Any) -> Camera | None:
        from py123d.datatypes import CameraModel

        channel = "".join(c if c.isalnum() or c in "_-." else "_" for c in metadata.camera_name)
        if metadata.camera_model != CameraModel.PINHOLE or metadata.intrinsics is None:
            self.left_out.append(f"camera {channel} ({metadata.camera_model.serialize()})")
            return None
        distortion = None if metadata.is_undistorted or metadata.distortion is None else metadata.distortion.array
        return Camera(
            channel,
            metadata.camera_id,
            (metadata.width, metadata.height),
            metadata.intrinsics.camera_matrix,
            inverse(self._ego_to_imu) @ _matrix(metadata.camera_to_imu_se3),
            distortion if distortion is not None and distortion.any() else None,
        )

    def _row(self, number: int) -> Row | None:
        """None where no sweep or no pose is."""
        time = self._value(number, "timestamp_us", self._types.EGO_STATE_SE3)
        if time is None or self._value(number, "timestamp_us", self._types.LIDAR, self._lidar) is None:
            return None
        imu_to_global = _matrix(self._value(number, "imu_se3", self._types.EGO_STATE_SE3))
        boxes = self._annotated and self._value(number, "timestamp_us", self._types.BOX_DETECTIONS_SE3) is not None
        times = {c.channel: self._value(number, "timestamp_us", self._types.CAMERA, c.key) for c in self.cameras}
        there = {channel: time for channel, time in times.items() if time is not None}
        return Row(number, time, imu_to_global @ self._ego_to_imu, boxes, there)

    def _value(self, number: int, column: str, modality: Any, key: Any = None) -> Any:
        """A column as it is stored, None where the row has nothing of that sensor."""
        return self._log.get_modality_column_at_iteration(number, column, modality, key)

    def _drop_rare_cameras(self) -> None:
        enough = FEWEST_IMAGES * len(self.rows)
        rare = [c for c in self.cameras if sum(c.channel in row.image_times for row in self.rows) < enough]
        self.left_out += [f"camera {c.channel} (few images)" for c in rare]
        self.cameras = [c for c in self.cameras if c not in rare]

    def key_rows(self, rate: float) -> list[Row]:
        """Rows with all that a sample has, `rate` a second as near as there are, or all where there are fewer."""
        channels = {c.channel for c in self.cameras}
        whole = [r for r in self.rows if channels <= r.image_times.keys() and (r.boxes or not self._annotated)]
        self._lack(whole, "a time at which it has a sweep, an ego pose, boxes and an image of each camera")
        times, period = np.array([row.time for row in whole]), 1e6 / rate
        wanted = np.arange(times[0], times[-1] + period / 2, period)
        nearest = np.abs(times - wanted[:, None]).argmin(1)
        return [whole[k] for k in np.unique(nearest[np.abs(times[nearest] - wanted) <= period / 2])]

    def points(self, row: Row) -> np.ndarray:
        """(N, 5) float32 x, y, z in LIDAR_TOP's frame, intensity 0..255, ring; the last two 0 where unknown."""
        lidar = self._read(row, lambda: self._log.get_lidar_at_iteration(row.number, self._lidar), "sweep")
        lidar_to_imu = self._ego_to_imu @ self.lidar_to_ego
        out = np.zeros((len(lidar.xyz), 5), np.float32)
        out[:, :3] = apply(inverse(lidar_to_imu), lidar.xyz.astype(np.float64))
        for column, values in ((3, lidar.intensity), (4, lidar.channel)):
            if values is not None:
                out[:, column] = values
        return out[np.isfinite(out).all(1)]

    def boxes(self, row: Row) -> list[Box]:
        """What is annotated at a row; nothing where nothing can be."""
        if not row.boxes:
            return []
        boxes = self._read(row, lambda: self._log.get_box_detections_se3_at_iteration(row.number), "boxes")
        out = []
        for box in boxes:
            pose, of = box.bounding_box_se3, box.attributes
            size = np.array([pose.length, pose.width, pose.height])
            center, rotation = pose.center_se3.array[:3], pose.center_se3.array[3:]
            out.append(Box(of.track_token, of.label.name, center, size, rotation / np.linalg.norm(rotation)))
        return out

    def camera_pose(self, row: Row, camera: Camera) -> np.ndarray:
        """(4, 4) ego to global when the image was taken."""
        pose = self._value(row.number, "camera_to_global_se3", self._types.CAMERA, camera.key)
        return _matrix(pose) @ inverse(camera.to_ego)

    def image(self, row: Row, camera: Camera) -> bytes:
        """A JPEG without distortion: as it is stored, where it is stored so."""
        stored = self._value(row.number, "data", self._types.CAMERA, camera.key)
        if camera.distortion is None and isinstance(stored, bytes) and stored.startswith(b"\xff\xd8"):
            return stored
        if camera.distortion is None and isinstance(stored, str) and stored.lower().endswith((".jpg", ".jpeg")):
            from py123d.common.runtime import get_dataset_paths

            root = get_dataset_paths().get_sensor_root(self.dataset)
            if root is not None and (Path(root) / stored).is_file():
                return (Path(root) / stored).read_bytes()
        read = self._read(row, lambda: self._log.get_camera_at_iteration(row.number, camera.key), "image")
        image = read.rgb_image
        if camera.distortion is not None:
            import cv2

            image = cv2.undistort(image, camera.intrinsics, camera.distortion)
        image = np.ascontiguousarray(image)
        return simplejpeg.encode_jpeg(image, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="420")

    def _read(self, row: Row, read: Any, what: str) -> Any:
        """`read()`, whose errors are py123d's and of any kind. Raises DataError for them."""
        try:
            value = read()
        except Exception as error:
            value, told = None, _told(error)
        else:
            told = "nothing is there"
        if value is None:
            raise DataError(
                f"{self.folder}: the {what} of row {row.number} cannot be read ({told}); if the log keeps paths only, "
                f"set py123d's variable for them (AV2_DATA_ROOT ...), or leave the log out with --leave-out {self.name}"
            )
        return value


def find_logs(root: Path) -> list[Path]:
    """The folders of all logs at and below `root`, in order."""
    if (root / SYNC).is_file():
        return [root]
    below = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return [log for path in below for log in find_logs(path)]


def _matrix(pose: Any) -> np.ndarray:
    """(4, 4) of a pose of py123d, or of its seven stored numbers: x, y, z, qw, qx, qy, qz."""
    values = np.asarray(getattr(pose, "array", pose), np.float64)
    return transform(values[3:] / np.linalg.norm(values[3:]), values[:3])


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
