"""Bird's-eye-view masks of a sample: where one can drive, and where vehicles stand."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from batches.drivable import Maps
from models.boxes import Boxes
from models.geometry import apply, inverse, rotation_z
from models.names import CATEGORY_TO_CLASS
from storage.index import Index

VEHICLES = {name for category, name in CATEGORY_TO_CLASS.items() if category.startswith("vehicle.")}  # classes


class BevMasks:
    """Masks on a square grid of the key ego frame, x and y in +- `bev_range` m in cells of `bev_cell` m.

    As in LSS (arXiv 2008.05711), a vehicle is every annotation of a `vehicle.` category, bicycles included, or of one
    that `ingest.classes` maps to the class of such a category. A cell belongs to a mask where its centre does: there is
    no rounding of corners.
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
        ego_to_global = index.lidar_ego_to_global[sample]
        boxes = vehicles(index, sample).levelled(index.lidar_to_global(sample))
        boxes = boxes.moved(inverse(ego_to_global))
        return np.stack([drivable, footprints(boxes, places[:, :2])]).reshape(2, self._size, self._size)


def vehicles(index: Index, sample: int) -> Boxes:
    """The boxes of a sample's vehicles in its LIDAR_TOP frame."""
    rows = np.arange(index.box_rows(sample).start, index.box_rows(sample).stop)
    rows = rows[[_is_vehicle(name, index.own_classes) for name in index.box_category[rows]]] if len(rows) else rows
    return Boxes(
        centers=index.box_center[rows],
        sizes=index.box_size[rows],
        yaws=index.box_yaw[rows],
        velocities=index.box_velocity[rows],
        labels=index.box_label[rows].astype(np.int64),
    )


def _is_vehicle(category: str, own_classes: Mapping[str, str]) -> bool:
    if category in own_classes:
        return own_classes[category] in VEHICLES
    return category.startswith("vehicle.")


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
