"""The index's annotations as predictions, which is what a perfect detector would hand in, and as what is looked for."""

from collections.abc import Iterable

import numpy as np

from evaluation.flat import RACK, FlatBoxes, counted
from models.boxes import Boxes
from storage.index import Index, has_points


def ground_truth(index: Index, sample: int) -> Boxes:
    """The annotated boxes the official evaluation counts, in the sample's LIDAR frame, each with score 1.

    Left out are boxes of no detection class and boxes without a LiDAR or radar point: the devkit drops those from the
    ground truth, so as predictions they would be false positives. Where there is no LiDAR to count them, all are
    there. Distance it filters on both sides.
    """
    return _boxes(index, _counted_rows(index, sample))


def ground_truth_attributes(index: Index, sample: int) -> list[str]:
    """The attribute of each box of `ground_truth(index, sample)`, '' where it has none."""
    return [str(name) for name in index.box_attribute[_counted_rows(index, sample)]]


def flat_truth(index: Index, samples: Iterable[int]) -> FlatBoxes:
    """What the official evaluation looks for in these samples: `ground_truth` within range and outside racks."""
    parts = []
    for sample in samples:
        boxes = ground_truth(index, sample).levelled(index.lidar_to_global(sample))
        parts.append(FlatBoxes.from_boxes(sample, boxes, ground_truth_attributes(index, sample)))
    truth = FlatBoxes.joined(parts)
    return truth[counted(truth, ego(index), racks(index, samples))]


def ego(index: Index) -> np.ndarray:
    """(samples, 2) m: the ego's place at the time of each sample's LiDAR, global."""
    return index.lidar_ego_to_global[:, :2, 3]


def racks(index: Index, samples: Iterable[int]) -> dict[int, Boxes]:
    """The bicycle racks of those of the samples that have any, in the global frame."""
    rows = {s: _rows(index, s) for s in samples}
    of_racks = {s: r[index.box_category[r] == RACK] for s, r in rows.items()}
    return {s: _boxes(index, r).levelled(index.lidar_to_global(s)) for s, r in of_racks.items() if len(r)}


def _boxes(index: Index, rows: np.ndarray) -> Boxes:
    return Boxes(
        centers=index.box_center[rows],
        sizes=index.box_size[rows],
        yaws=index.box_yaw[rows],
        velocities=index.box_velocity[rows],
        labels=index.box_label[rows],
        scores=np.ones(len(rows)),
    )


def _counted_rows(index: Index, sample: int) -> np.ndarray:
    rows = _rows(index, sample)
    measured = has_points(index.box_lidar_points[rows], 1) | (index.box_radar_points[rows] > 0)
    return rows[(index.box_label[rows] >= 0) & measured]


def _rows(index: Index, sample: int) -> np.ndarray:
    rows = index.box_rows(sample)
    return np.arange(rows.start, rows.stop)
