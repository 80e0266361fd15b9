"""The ten numbers by which a TransFusion head says a box, in the two conventions of the published checkpoints."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from models.boxes import Boxes
from models.center_head import LARGEST_LOG_SIZE

# Parts of a code in their order, as the head's branches are called: cells, m, log m, (sin, cos), m/s.
PARTS = {"center": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
LENGTH = sum(PARTS.values())


class Convention(StrEnum):
    """What a checkpoint was taught to say.

    mmdetection3d: the centre's z; sizes l, w, h; yaw counter-clockwise from +x. What is fitted here says the same.
    MIT: z + h / 2; sizes w, l, h; -yaw - pi / 2. (It was taught with centres taken for bottoms, and its own evaluation
    leaves the half height in, which none of nuScenes' metrics sees.)
    """

    MMDET3D = "mmdetection3d"
    MIT = "MIT"


@dataclass(frozen=True)
class BoxCoder:
    """Boxes to codes (N, 10) and back.

    origin: x, y of the map's corner (m); cell_size: along x and y (m).
    """

    origin: tuple[float, float]
    cell_size: tuple[float, float]
    convention: Convention

    def encode(self, boxes: Boxes) -> np.ndarray:
        """(N, 10) float64; velocity is NaN where it is unknown."""
        mit = self.convention is Convention.MIT
        sizes, angle = (boxes.sizes[:, [1, 0, 2]], -boxes.yaws - np.pi / 2) if mit else (boxes.sizes, boxes.yaws)
        height = boxes.centers[:, 2] + (sizes[:, 2] / 2 if mit else 0)
        return np.c_[self.cells(boxes), height, np.log(sizes), np.sin(angle), np.cos(angle), boxes.velocities]

    def decode(self, codes: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> Boxes:
        """Boxes of codes (N, 10)."""
        mit = self.convention is Convention.MIT
        center, height, dim, rot, velocities = np.split(
            codes.astype(np.float64), np.cumsum(list(PARTS.values()))[:-1], axis=1
        )
        sizes = np.exp(dim.clip(-LARGEST_LOG_SIZE, LARGEST_LOG_SIZE))
        z = height - (sizes[:, 2:] / 2 if mit else 0)
        angle = np.arctan2(rot[:, 0], rot[:, 1])
        return Boxes(
            centers=np.c_[center * self.cell_size + self.origin, z],
            sizes=sizes[:, [1, 0, 2]] if mit else sizes,
            yaws=-angle - np.pi / 2 if mit else angle,
            velocities=velocities,
            labels=labels,
            scores=scores,
        )

    def cells(self, boxes: Boxes) -> np.ndarray:
        """(N, 2) where the centres lie in the map, in cells."""
        return (boxes.centers[:, :2] - self.origin) / self.cell_size
