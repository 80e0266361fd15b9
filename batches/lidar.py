"""Training samples of the LiDAR detector: points and boxes, turned and mirrored together."""

from dataclasses import dataclass, replace

import numpy as np

from models.boxes import Boxes
from models.geometry import heading, rotation_z
from storage.index import Index, has_points


@dataclass(frozen=True)
class SceneDraw:
    """What is done to a scene about the origin of its frame: turned about z, scaled, then mirrored."""

    rotation: float = 0.0  # rad, from +x to +y
    scale: float = 1.0
    flip_x: bool = False  # x -> -x
    flip_y: bool = False

    def matrix(self) -> np.ndarray:
        """(3, 3) float64, a point before -> after."""
        return np.diag([1.0 - 2 * self.flip_x, 1.0 - 2 * self.flip_y, 1.0]) @ (self.scale * rotation_z(self.rotation))


def draw_scene(
    random: np.random.Generator, rotation: tuple[float, float], scale: tuple[float, float], flip: tuple[float, float]
) -> SceneDraw:
    """A draw from the ranges of rotation (rad) and scale, mirrored in x and in y so often; in BEVDet's order."""
    turn, factor = random.uniform(*rotation), random.uniform(*scale)
    return SceneDraw(turn, factor, *(random.uniform() < share for share in flip))


@dataclass(frozen=True)
class LidarAugmentation:
    """Limits of the random similarity that a training sample goes through."""

    flip: bool  # half of the samples along x, half along y
    rotation: float  # rad, either way
    scale: float  # at most so much larger or smaller

    def draw(self, random: np.random.Generator) -> np.ndarray:
        """(3, 3) float64, see `SceneDraw`."""
        around, share = self.rotation, 0.5 if self.flip else 0.0
        return draw_scene(random, (-around, around), (1 - self.scale, 1 + self.scale), (share, share)).matrix()


def augmented(points: np.ndarray, boxes: Boxes, matrix: np.ndarray) -> tuple[np.ndarray, Boxes]:
    """Points (N, 5) and boxes after `matrix` (3, 3), a scaled rotation about z with or without mirroring.

    A box keeps being a box: its length axis is turned as a direction, its size and velocity scale along.
    """
    moved = points.copy()
    moved[:, :3] = points[:, :3] @ matrix.T.astype(np.float32)
    ahead = np.stack([np.cos(boxes.yaws), np.sin(boxes.yaws)], -1) @ matrix[:2, :2].T
    return moved, replace(
        boxes,
        centers=boxes.centers @ matrix.T,
        sizes=boxes.sizes * matrix[2, 2],
        yaws=heading(ahead),
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
    gone, added = np.zeros(len(points), bool), []
    chosen: list[int] = []
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
    together = Boxes.joined([boxes, other_boxes[np.array(chosen, int)]])
    return np.concatenate([points[~gone], *added]), together


def _inside(points: np.ndarray, x: np.ndarray, box: Boxes) -> np.ndarray:
    """Rows of the points in one box. x: their first column, apart, so that most are dropped in one pass."""
    near = np.flatnonzero(np.abs(x - box.centers[0, 0]) <= np.linalg.norm(box.sizes[0, :2]) / 2)
    return near[box.contains(points[near, :3])[0]]


def sample_boxes(index: Index, sample: int, min_lidar_points: int = 0) -> Boxes:
    """A sample's boxes of the detection classes in its LIDAR_TOP frame, with so many LiDAR points or none counted."""
    rows = index.box_rows(sample)
    boxes = Boxes(
        centers=index.box_center[rows],
        sizes=index.box_size[rows],
        yaws=index.box_yaw[rows],
        velocities=index.box_velocity[rows],
        labels=index.box_label[rows].astype(np.int64),
    )
    return boxes[(boxes.labels >= 0) & has_points(index.box_lidar_points[rows], min_lidar_points)]
