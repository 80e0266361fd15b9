"""Bird's-eye-view masks of a sample: where one can drive, and where vehicles stand."""

from pathlib import Path

import numpy as np

from models.boxes import Boxes
from models.geometry import apply, rotation_z
from storage.index import Index
from tasks.batches.drivable import Maps


class BevMasks:
    """Masks on a square grid of the key ego frame, x and y in +- `bev_range` m in cells of `bev_cell` m.

    As in LSS (arXiv 2008.05711), a vehicle is every annotation of a `vehicle.` category, bicycles included. A cell
    belongs to a mask where its centre does: there is no rounding of corners.
    """

    def __init__(self, index: Index, dataroot: Path, bev_range: float, bev_cell: float):
        self._index, self._maps = index, Maps(index, dataroot)
        middles = np.arange(-bev_range + bev_cell / 2, bev_range, bev_cell)
        y, x = np.meshgrid(middles, middles, indexing="ij")
        self._size = len(middles)
        self._centres = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)  # (Y * X, 3)

    def read(self, sample: int, scene: np.ndarray | None = None) -> np.ndarray:
        """(2, Y, X) bool, the layers of names.BEV_LAYERS. scene (4, 4): augmentation, ego -> augmented ego."""
        index = self._index
        places = self._centres if scene is None else apply(np.linalg.inv(scene), self._centres)
        drivable = self._maps.of(sample).contains(apply(index.lidar_ego_to_global[sample], places)[:, :2])
        boxes = vehicles(index, sample).moved(index.lidar_to_ego[sample])
        return np.stack([drivable, footprints(boxes, places[:, :2])]).reshape(2, self._size, self._size)


def vehicles(index: Index, sample: int) -> Boxes:
    """The boxes of a sample's vehicles in its LIDAR_TOP frame."""
    rows = np.arange(len(index.box_label))[index.box_rows(sample)]
    rows = rows[[str(name).startswith("vehicle.") for name in index.box_category[rows]]] if len(rows) else rows
    return Boxes(
        centers=index.box_center[rows],
        sizes=index.box_size[rows],
        yaws=index.box_yaw[rows],
        velocities=index.box_velocity[rows],
        labels=index.box_label[rows].astype(np.int64),
    )


def footprints(boxes: Boxes, xy: np.ndarray) -> np.ndarray:
    """(N,) bool: whether positions (N, 2) lie in the rectangle that a box covers on the ground."""
    out = np.zeros(len(xy), bool)
    x, y = np.ascontiguousarray(xy.T)
    for center, size, turn in zip(boxes.centers, boxes.sizes, rotation_z(boxes.yaws)):
        reach = np.hypot(*size[:2]) / 2
        near = np.flatnonzero((np.abs(x - center[0]) <= reach) & (np.abs(y - center[1]) <= reach))
        local = (xy[near] - center[:2]) @ turn[:2, :2]
        out[near] |= (np.abs(local) <= size[:2] / 2).all(1)
    return out
