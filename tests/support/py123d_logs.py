"""A short drive in py123d's own format, by its own writer: a car that turns, two cameras and a fisheye, two LiDARs.

As Waymo's logs are, a row's sweep lies at the ego pose of some 50 ms later, and each image has a time of its own. One
landmark stands still; its image is a bright disc where py123d itself projects it, distorted where the lens is.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from py123d.api import ParsedCamera
from py123d.api.scene.arrow.arrow_log_writer import ArrowLogWriter
from py123d.api.scene.arrow.utils.log_writer_config import LogWriterConfig
from py123d.datatypes import (
    BoxDetectionAttributes,
    BoxDetectionSE3,
    BoxDetectionsSE3,
    BoxDetectionsSE3Metadata,
    CameraID,
    EgoStateSE3,
    EgoStateSE3Metadata,
    Lidar,
    LidarID,
    LidarMergedMetadata,
    LidarMetadata,
    LogMetadata,
    PinholeCameraMetadata,
    PinholeDistortion,
    PinholeIntrinsics,
    Timestamp,
)
from py123d.datatypes.sensors.fisheye_mei_camera import (
    FisheyeMEICameraMetadata,
    FisheyeMEIDistortion,
    FisheyeMEIProjection,
)
from py123d.geometry import BoundingBoxSE3, PoseSE3
from py123d.parser.base_dataset_parser import ModalitiesSync
from py123d.parser.registry import AV2SensorBoxDetectionLabel as Label

from models.geometry import apply, inverse, rotation_to_quaternion, rotation_z, transform

START = 1_700_000_000_000_000  # us
ROWS, STEP = 17, 100_000  # of a log, and us between them
POSE_LATE = 50_000  # us from a row's time to its ego pose's
CAMERA_LATE = {"ring front": 10_000, "side": 30_000}  # us
SIZE = (320, 192)  # px
AHEAD = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], float)  # a camera's axes in the car's, looking ahead
REAR_AXLE_TO_IMU = transform(np.eye(3), np.array([-0.6, 0.1, -0.2]))
LIDAR_TO_IMU = transform(rotation_z(0.4), np.array([0.9, 0.0, 1.5]))  # turned, as LiDARs are
CAMERA_TO_IMU = {
    "ring front": transform(AHEAD, np.array([1.5, 0.0, 1.2])),
    "side": transform(rotation_z(np.deg2rad(20)) @ AHEAD, np.array([1.3, 0.4, 1.2])),
}
LANDMARK = np.array([28.0, 4.0, 2.0])  # m, global
PLACE = np.array([500_000.0, 4_200_000.0, 30.0])  # m: global coordinates are large, as they are on a map's grid


@dataclass(frozen=True)
class Thing:
    track: str
    label: Label
    size: tuple[float, float, float]  # length, width, height
    start: tuple[float, float, float]
    velocity: tuple[float, float]
    yaw: float
    points: int  # LiDAR points in it

    def center(self, time: int) -> np.ndarray:
        """(3,) m, global, at us."""
        seconds = (time - START) / 1e6
        return PLACE + self.start + np.array([*self.velocity, 0.0]) * seconds


THINGS = (
    Thing("a car", Label.REGULAR_VEHICLE, (4.5, 1.9, 1.6), (16.0, 3.0, 0.8), (6.0, 2.0), 0.32, 40),
    Thing("a walker", Label.PEDESTRIAN, (0.7, 0.6, 1.7), (12.0, -3.0, 0.85), (-1.0, 0.5), 2.7, 7),
    Thing("a bollard", Label.BOLLARD, (0.3, 0.3, 1.0), (9.0, 2.0, 0.5), (0.0, 0.0), 0.0, 3),
)


def imu_to_global(time: int) -> np.ndarray:
    """(4, 4) of a car that drives a curve at 5 m/s."""
    seconds = (time - START) / 1e6
    yaw = 0.05 + 0.1 * seconds
    return transform(rotation_z(yaw), PLACE + np.array([5 * seconds, 0.2 * seconds**2, 0.0]))


def pose(a_to_b: np.ndarray) -> PoseSE3:
    return PoseSE3(*a_to_b[:3, 3], *rotation_to_quaternion(a_to_b[:3, :3]))


def row_time(row: int) -> int:
    return START + row * STEP


def pose_time(row: int) -> int:
    """us, when the points and boxes of a row are where they are."""
    return row_time(row) + POSE_LATE


def write_log(
    root: Path, split: str, name: str, lidar: bool = True, boxes: bool = True, stored: str = "jpeg_binary"
) -> Path:
    """Write a log below `root`, and return its folder. stored: how images are."""
    config = LogWriterConfig(
        camera_store_option=stored, lidar_store_option="binary", lidar_codec="ipc", write_route=False
    )
    writer = ArrowLogWriter(config, root, root.parent / "sensors")
    assert writer.reset(LogMetadata("av2-sensor", split, name, "a town"))
    for row in range(ROWS):
        modalities = [_ego(row), *images(row)]
        modalities += [_boxes(row)] if boxes else []
        modalities += [sweep(row)] if lidar else []
        writer.write_sync(ModalitiesSync(Timestamp.from_us(row_time(row)), modalities))
    writer.close()
    return root / split / name


def _ego(row: int) -> EgoStateSE3:
    rear = pose(REAR_AXLE_TO_IMU)
    metadata = EgoStateSE3Metadata("a car", 1.9, 4.6, 1.6, 2.8, PoseSE3.identity(), rear)
    time = pose_time(row)
    return EgoStateSE3.from_imu(pose(imu_to_global(time)), metadata, Timestamp.from_us(time))


def _boxes(row: int) -> BoxDetectionsSE3:
    time, boxes = pose_time(row), []
    for thing in THINGS:
        stands = pose(transform(rotation_z(thing.yaw), thing.center(time)))
        boxes.append(
            BoxDetectionSE3(BoxDetectionAttributes(thing.label, thing.track), BoundingBoxSE3(stands, *thing.size))
        )
    return BoxDetectionsSE3(boxes, Timestamp.from_us(time), BoxDetectionsSE3Metadata(Label))


def sweep(row: int) -> Lidar:
    """The road, the things and, as the last point, the landmark; in the IMU's frame."""
    rng, time = np.random.default_rng(row), pose_time(row)
    to_imu = inverse(imu_to_global(time))
    around = rng.uniform(-30, 30, (400, 2))
    clear = np.ones(len(around), bool)
    placed = []
    for thing in THINGS:
        center = thing.center(time)
        inside = rng.uniform(-0.45, 0.45, (thing.points, 3)) * thing.size
        placed.append(inside @ rotation_z(thing.yaw).T + center)
        clear &= np.linalg.norm(around + PLACE[:2] - center[:2], axis=1) > 4
    road = np.column_stack([around[clear], np.zeros(clear.sum())]) + PLACE
    points = apply(to_imu, np.concatenate([road, *placed, [PLACE + LANDMARK]])).astype(np.float32)
    features = {
        "ids": np.full(len(points), int(LidarID.LIDAR_TOP), np.uint8),
        "intensity": (np.arange(len(points)) % 256).astype(np.uint8),
        "channel": (np.arange(len(points)) % 32).astype(np.uint8),
    }
    lidars = {
        LidarID.LIDAR_DOWN: LidarMetadata("down", LidarID.LIDAR_DOWN, PoseSE3.identity()),
        LidarID.LIDAR_TOP: LidarMetadata("up", LidarID.LIDAR_TOP, pose(LIDAR_TO_IMU)),
    }
    start = row_time(row)
    times = Timestamp.from_us(start), Timestamp.from_us(start + STEP)
    return Lidar(*times, LidarMergedMetadata(lidars), points, features)


def pinhole(name: str) -> PinholeCameraMetadata:
    bent = name == "side"
    return PinholeCameraMetadata(
        name,
        CameraID.PCAM_L0 if bent else CameraID.PCAM_F0,
        PinholeIntrinsics(250.0, 250.0, 160.0, 96.0),
        PinholeDistortion(-0.35, 0.1, 0.001, 0.0, 0.0) if bent else None,
        *SIZE,
        pose(CAMERA_TO_IMU[name]),
        is_undistorted=not bent,
    )


def images(row: int) -> list[ParsedCamera]:
    out = []
    for name, late in CAMERA_LATE.items():
        metadata, time = pinhole(name), row_time(row) + late
        to_global = imu_to_global(time) @ CAMERA_TO_IMU[name]
        there = apply(inverse(to_global), (PLACE + LANDMARK)[None])
        out.append(_image(metadata, time, to_global, metadata.project_to_image(there)[0][0]))
    fisheye = FisheyeMEICameraMetadata(
        "fish",
        CameraID.FMCAM_L,
        1.0,
        FisheyeMEIDistortion(0, 0, 0, 0),
        FisheyeMEIProjection(100, 100, 160, 96),
        *SIZE,
        pose(CAMERA_TO_IMU["ring front"]),
    )
    return [*out, _image(fisheye, row_time(row), imu_to_global(row_time(row)), np.zeros(2))]


def _image(metadata, time: int, to_global: np.ndarray, landmark: np.ndarray) -> ParsedCamera:
    """Grey, with a white disc of 5 px around the landmark."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    picture = np.where(np.hypot(x - landmark[0], y - landmark[1])[..., None] < 5, 255, 90)
    pixels = np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)).astype(np.uint8))
    data = simplejpeg.encode_jpeg(pixels, quality=90)
    return ParsedCamera(metadata, Timestamp.from_us(time), pose(to_global), byte_string=data)
