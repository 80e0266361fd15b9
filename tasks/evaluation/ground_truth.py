"""The index's annotations as predictions: what a perfect detector would hand in."""

import numpy as np

from models.boxes import Boxes
from storage.index import Index


def ground_truth(index: Index, sample: int) -> Boxes:
    """The annotated boxes the official evaluation counts, in the sample's LIDAR frame, each with score 1.

    Left out are boxes of no detection class and boxes without a LiDAR or radar point: the devkit drops those from the
    ground truth, so as predictions they would be false positives. Distance it filters on both sides.
    """
    rows = _counted_rows(index, sample)
    return Boxes(
        centers=index.box_center[rows],
        sizes=index.box_size[rows],
        yaws=index.box_yaw[rows],
        velocities=index.box_velocity[rows],
        labels=index.box_label[rows],
        scores=np.ones(len(rows)),
    )


def ground_truth_attributes(index: Index, sample: int) -> list[str]:
    """The attribute of each box of `ground_truth(index, sample)`, '' where it has none."""
    return [str(name) for name in index.box_attribute[_counted_rows(index, sample)]]


def _counted_rows(index: Index, sample: int) -> np.ndarray:
    rows = np.arange(len(index.box_label))[index.box_rows(sample)]
    points = index.box_lidar_points[rows] + index.box_radar_points[rows]
    return rows[(index.box_label[rows] >= 0) & (points > 0)]
