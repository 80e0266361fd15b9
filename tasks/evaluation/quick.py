"""mAP of some samples, with the devkit's own matching on the index's boxes: a check before hours of work, not a result.

It differs from the official evaluation in two things: samples are chosen, and bicycles in racks are not left out.
"""

from collections.abc import Mapping

import numpy as np

from models.boxes import Boxes
from models.names import CLASSES
from storage.index import Index
from tasks.evaluation.ground_truth import ground_truth
from tasks.evaluation.submission import submission


def annotated_samples(index: Index, most: int) -> np.ndarray:
    """At most `most` samples that have boxes to find, spread over val, or over train where val has none."""
    for split in ("val", "train"):
        there = np.array([s for s in index.samples(split) if len(ground_truth(index, int(s)))], int)
        if len(there):
            return there[np.unique(np.linspace(0, len(there) - 1, min(most, len(there))).astype(int))]
    return np.zeros(0, int)


def average_precisions(index: Index, predictions: Mapping[int, Boxes]) -> dict[str, float]:
    """AP (mean over the four official distances) of each class that has boxes in the samples of `predictions`."""
    from nuscenes.eval.common.utils import center_distance
    from nuscenes.eval.detection.algo import accumulate, calc_ap
    from nuscenes.eval.detection.config import config_factory

    config = config_factory("detection_cvpr_2019")
    truth = _eval_boxes(index, {s: ground_truth(index, s) for s in predictions}, config.class_range)
    found = _eval_boxes(index, predictions, config.class_range)
    there = {box.detection_name for box in truth.all}
    out = {}
    for name in (n for n in CLASSES if n in there):
        curves = [accumulate(truth, found, name, center_distance, distance) for distance in config.dist_ths]
        out[name] = float(np.mean([calc_ap(c, config.min_recall, config.min_precision) for c in curves]))
    return out


def _eval_boxes(index: Index, boxes: Mapping[int, Boxes], class_range: Mapping[str, float]):
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.data_classes import DetectionBox

    out = EvalBoxes()
    for sample, records in zip(boxes, submission(index, boxes)["results"].values()):
        ego = index.lidar_ego_to_global[sample][:2, 3]
        kept = [
            DetectionBox.deserialize(record | {"num_pts": 1})
            for record in records
            if np.linalg.norm(np.array(record["translation"][:2]) - ego) < class_range[record["detection_name"]]
        ]
        out.add_boxes(str(index.token[sample]), kept)
    return out
