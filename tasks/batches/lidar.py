"""Training samples of the LiDAR detector: points and boxes, turned and mirrored together."""

from dataclasses import dataclass, replace

import numpy as np

from models.boxes import Boxes
from storage.index import Index


@dataclass(frozen=True)
class LidarAugmentation:
    """Limits of the random similarity that a training sample goes through (about the LiDAR, in its x-y plane)."""

    flip: bool
    rotation: float  # rad
    scale: float

    def draw(self, random: np.random.Generator) -> np.ndarray:
        """(3, 3) float64: scale @ rotation about z @ mirroring of x and of y."""
        angle = random.uniform(-self.rotation, self.rotation)
        factor = random.uniform(1 - self.scale, 1 + self.scale)
        signs = 1 - 2 * random.integers(0, 2, 2) if self.flip else np.ones(2)
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        return factor * turn @ np.diag([*signs, 1.0])


def augmented(points: np.ndarray, boxes: Boxes, matrix: np.ndarray) -> tuple[np.ndarray, Boxes]:
    """Points (N, 5) and boxes after `matrix` (3, 3), a scaled rotation about z with or without mirroring.

    A box keeps being a box: its length axis is turned as a direction, its size and velocity scale along.
    """
    moved = points.copy()
    moved[:, :3] = points[:, :3] @ matrix.T.astype(np.float32)
    heading = np.stack([np.cos(boxes.yaws), np.sin(boxes.yaws)], -1) @ matrix[:2, :2].T
    return moved, replace(
        boxes,
        centers=boxes.centers @ matrix.T,
        sizes=boxes.sizes * matrix[2, 2],
        yaws=np.arctan2(heading[:, 1], heading[:, 0]),
        velocities=boxes.velocities @ matrix[:2, :2].T,
    )


def sample_boxes(index: Index, sample: int, min_lidar_points: int = 0) -> Boxes:
    """A sample's boxes of the detection classes in its LIDAR_TOP frame, with at least so many LiDAR points."""
    rows = index.box_rows(sample)
    boxes = Boxes(
        centers=index.box_center[rows],
        sizes=index.box_size[rows],
        yaws=index.box_yaw[rows],
        velocities=index.box_velocity[rows],
        labels=index.box_label[rows].astype(np.int64),
    )
    return boxes[(boxes.labels >= 0) & (index.box_lidar_points[rows] >= min_lidar_points)]
