"""The sensors: six cameras and one 32-beam LiDAR on a car, placed and timed as on nuScenes' cars.

The ego frame stands on the road below the rear axle: x forward, y left, z up. A camera's frame is x right, y down,
z forward; the LiDAR's is x right, y forward, z up. Pixel (i, j) covers [i, i + 1) x [j, j + 1) of the image plane.
"""

from dataclasses import dataclass

import numpy as np

from models.geometry import rotation_z, transform
from models.names import CAMERAS

FULL_SIZE = (1600, 900)  # width, height of a real image

LIDAR_TO_EGO = transform(rotation_z(-np.pi / 2), np.array([0.944, 0.0, 1.840]))
RING_ELEVATIONS = np.deg2rad(np.linspace(-30.67, 10.67, 32))  # ring 0 looks down
AZIMUTH_STEPS = 1084
FIRST_AZIMUTH = np.deg2rad(-91.3)  # from the LiDAR's y axis towards x: a sweep starts left and turns clockwise

# The car that carries the rig, in the ego frame: centre x, length, width, height (m).
EGO_BODY = (1.45, 4.1, 1.75, 1.6)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. Times are relative to the LiDAR's stamp: the camera fires as the beam crosses its view."""

    name: str
    focal: float  # px of the full image
    principal: tuple[float, float]  # px of the full image
    position: tuple[float, float, float]  # m, ego frame
    yaw: float  # deg, optical axis in the ego frame
    delay: float  # s, camera stamp - LiDAR stamp

    def to_ego(self) -> np.ndarray:
        """camera_to_ego (4, 4)."""
        forward_left_up = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
        return transform(rotation_z(np.deg2rad(self.yaw)) @ forward_left_up, np.array(self.position))

    def intrinsics(self, size: tuple[int, int]) -> np.ndarray:
        """(3, 3) for an image of (width, height)."""
        full = np.array([[self.focal, 0.0, self.principal[0]], [0.0, self.focal, self.principal[1]], [0.0, 0.0, 1.0]])
        return np.diag([size[0] / FULL_SIZE[0], size[1] / FULL_SIZE[1], 1.0]) @ full


RIG = (
    Camera("CAM_FRONT", 1266.4, (816.3, 491.5), (1.70, 0.02, 1.51), 0.3, -0.0355),
    Camera("CAM_FRONT_RIGHT", 1260.8, (808.0, 495.3), (1.55, -0.49, 1.50), -56.4, -0.0276),
    Camera("CAM_FRONT_LEFT", 1272.6, (826.6, 479.8), (1.52, 0.49, 1.51), 55.2, -0.0431),
    Camera("CAM_BACK", 809.2, (829.2, 481.8), (0.03, 0.00, 1.58), 179.9, -0.0104),
    Camera("CAM_BACK_LEFT", 1256.7, (792.1, 492.8), (1.04, 0.48, 1.59), 108.6, -0.0005),
    Camera("CAM_BACK_RIGHT", 1259.5, (807.3, 501.2), (1.01, -0.48, 1.56), -110.8, -0.0201),
)
assert tuple(camera.name for camera in RIG) == CAMERAS


def image_size(scale: float) -> tuple[int, int]:
    """(width, height) of the images at a scale of the real ones."""
    return round(FULL_SIZE[0] * scale), round(FULL_SIZE[1] * scale)


def lidar_directions() -> np.ndarray:
    """Unit directions (AZIMUTH_STEPS, 32, 3) of one sweep's beams in the LiDAR's frame; rings cycle fastest."""
    azimuth = (FIRST_AZIMUTH + 2 * np.pi * np.arange(AZIMUTH_STEPS) / AZIMUTH_STEPS)[:, None]
    up = RING_ELEVATIONS[None]
    return np.stack(
        [np.sin(azimuth) * np.cos(up), np.cos(azimuth) * np.cos(up), np.broadcast_to(np.sin(up), (len(azimuth), 32))],
        -1,
    )
