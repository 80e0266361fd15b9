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


def pasted(
    points: np.ndarray,
    boxes: Boxes,
    other_points: np.ndarray,
    other_boxes: Boxes,
    most: int,
    random: np.random.Generator,
) -> tuple[np.ndarray, Boxes]:
    """A sample with up to `most` objects of another one where they stood there, as far as the place is free.

    Copy-paste as in SECOND, with another sample in place of a database: whatever was inside a pasted box goes.
    """
    reach, other_reach = (np.linalg.norm(b.sizes[:, :2], axis=1) / 2 for b in (boxes, other_boxes))
    taken = [*zip(boxes.centers[:, :2], reach)]
    x, other_x = (np.ascontiguousarray(cloud[:, 0]) for cloud in (points, other_points))
    gone, added, chosen = np.zeros(len(points), bool), [], []
    for i in random.permutation(len(other_boxes)):
        if len(chosen) == most:
            break
        place = other_boxes.centers[i, :2]
        if any(np.hypot(*(place - xy)) < r + other_reach[i] for xy, r in taken):
            continue
        taken.append((place, other_reach[i]))
        chosen.append(i)
        gone[_inside(points, x, other_boxes[[i]])] = True
        added.append(other_points[_inside(other_points, other_x, other_boxes[[i]])])
    new = other_boxes[np.array(chosen, int)]
    fields = ("centers", "sizes", "yaws", "velocities", "labels")
    together = Boxes(*(np.concatenate([getattr(boxes, name), getattr(new, name)]) for name in fields))
    return np.concatenate([points[~gone], *added]), together


def _inside(points: np.ndarray, x: np.ndarray, box: Boxes) -> np.ndarray:
    """Rows of the points in one box. x: their first column, apart, so that most are dropped in one pass."""
    near = np.flatnonzero(np.abs(x - box.centers[0, 0]) <= np.linalg.norm(box.sizes[0, :2]) / 2)
    return near[box.contains(points[near, :3])[0]]


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
