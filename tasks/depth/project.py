"""LiDAR points into the cameras of a sample, through the ego poses at both sensors' own times."""

from dataclasses import dataclass

import numpy as np

from dataroot.points import without_car
from models.geometry import apply, project
from storage.depth import SamplePoints

# Float32 arithmetic on points within 200 m moves a pixel by far less than this many focal lengths' worth of slack.
SLACK_PIXELS = 2.0
SLACK_DEPTH = 0.05


@dataclass(frozen=True)
class Rig:
    """One sample's cameras."""

    intrinsics: np.ndarray  # (C, 3, 3)
    image_size: np.ndarray  # (C, 2) px, width and height


def project_cloud(
    points: np.ndarray, lidar_to_camera: np.ndarray, rig: Rig, min_depth: float, margin: float
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pixels and depths of one cloud in each camera.

    Args:
        points: (N, >=3) float32 x, y, z (m) in the LiDAR's frame at its own time.
        lidar_to_camera: (C, 4, 4) float64, from that frame to each camera's at the camera's time.
        min_depth: points at this depth (m) or nearer are left out.
        margin: so are points this near (px) to the image's border or nearer.

    Returns:
        For each camera: which points (n,) in scan order, their pixels (n, 2) and depths (n,), float64. The same points,
        pixels and depths as the devkit's `map_pointcloud_to_image` (min_dist = min_depth, margin = 1), which however
        stores global coordinates in float32 on the way and so loses some 0.1 mm.
    """
    out = []
    homogeneous = np.ones((4, len(points)), np.float32)
    homogeneous[:3] = points[:, :3].T
    # All cameras in one float32 product picks the candidates (a tenth of the points each); float64 is for them alone.
    matrices = (rig.intrinsics @ lidar_to_camera[:, :3]).astype(np.float32)  # (C, 3, 4)
    rough = (matrices.reshape(-1, 4) @ homogeneous).reshape(len(matrices), 3, -1)
    for (u, v, z), to_camera, intrinsics, (width, height) in zip(
        rough, lidar_to_camera, rig.intrinsics, rig.image_size, strict=True
    ):
        low, slack = margin - SLACK_PIXELS, SLACK_PIXELS - margin
        near = (z > min_depth - SLACK_DEPTH) & (u > low * z) & (u < (width + slack) * z)
        which = np.flatnonzero(near & (v > low * z) & (v < (height + slack) * z))
        pixels, depth = project(apply(to_camera, points[which, :3].astype(np.float64)), intrinsics)
        inside = (depth > min_depth) & (pixels > margin).all(1) & (pixels < [width - margin, height - margin]).all(1)
        out.append((which[inside], pixels[inside], depth[inside]))
    return out


def project_sample(
    clouds: list[np.ndarray], cloud_to_camera: np.ndarray, rig: Rig, min_depth: float, margin: float
) -> SamplePoints:
    """The points of a sample's key sweep (first) and previous sweeps, camera by camera, sweep by sweep, in scan order.

    Args:
        clouds: K clouds (N_k, >=3) float32, each in its own sweep's LIDAR_TOP frame.
        cloud_to_camera: (K, C, 4, 4) float64.
    """
    per_camera: list[list[tuple[np.ndarray, np.ndarray, int]]] = [[] for _ in rig.intrinsics]
    for sweep, (points, to_camera) in enumerate(zip(clouds, cloud_to_camera, strict=True)):
        if sweep:
            points = without_car(points)
        for found, (_, pixels, depth) in zip(
            per_camera, project_cloud(points, to_camera, rig, min_depth, margin), strict=True
        ):
            found.append((pixels, depth, sweep))
    pieces = [piece for found in per_camera for piece in found]
    pixels = np.concatenate([pixels for pixels, _, _ in pieces]).astype(np.float32)
    return SamplePoints(
        u=pixels[:, 0],
        v=pixels[:, 1],
        depth=np.concatenate([depth for _, depth, _ in pieces]).astype(np.float32),
        sweep=np.repeat(np.array([sweep for _, _, sweep in pieces], np.uint8), [len(depth) for _, depth, _ in pieces]),
        offsets=np.cumsum([0] + [sum(len(depth) for _, depth, _ in found) for found in per_camera]),
    )
