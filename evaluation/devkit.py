"""The devkit's own evaluation (detection_cvpr_2019) of a results file, held against ours of the same boxes.

The only module that imports the devkit's classes, which takes seconds: import it where it is used.
"""

import contextlib
import io
import math
from pathlib import Path

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import (
    add_center_dist,
    filter_eval_boxes,
    load_gt_of_sample_tokens,
    load_prediction_of_sample_tokens,
)
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionMetrics
from nuscenes.eval.detection.evaluate import DetectionEval

from evaluation import metrics
from evaluation.flat import FlatBoxes
from models.names import CLASSES, LIDAR

ERRORS = {"trans_err": "ATE", "scale_err": "ASE", "orient_err": "AOE", "vel_err": "AVE", "attr_err": "AAE"}
TOLERANCE = 1e-6  # between the devkit's numbers and ours


def score(results: Path, dataroot: Path, version: str, tokens: list[str], split: str) -> dict:
    """What `evaluate` returns, of a results file that holds the samples `tokens`, all those of a split, in its order.

    Raises RuntimeError where our own metrics of the same boxes differ from the devkit's: one of the two is wrong.
    """
    with contextlib.redirect_stderr(io.StringIO()):  # the devkit draws progress bars whatever `verbose` says
        database = NuScenes(version=version, dataroot=str(dataroot), verbose=False)
        if not any(LIDAR in sample["data"] for sample in database.sample):
            _go_without_lidar(database)
        run = SamplesEval(database, results, tokens)
        official = scores_of(run.evaluate()[0], run.gt_boxes)
    ours = metrics.evaluate(_flat(run.gt_boxes, tokens), _flat(run.pred_boxes, tokens), run.ego())
    if different := _differences(ours, official):
        raise RuntimeError(f"{results}: the devkit's metrics and geomim's differ, please report it: {different}")
    facts = {"split": split, "samples": len(tokens), "predictions": run.predictions}
    return {**{k: v for k, v in official.items() if k != "classes"}, **facts, "classes": official["classes"]} | {
        "bands": ours["bands"]
    }


class SamplesEval(DetectionEval):
    """The devkit's evaluation, its own steps, of the samples it is given.

    Its constructor takes a split by name: it refuses the names it knows (val) in a `splits.json` of one's own, and a
    file without any box.
    """

    def __init__(self, database: NuScenes, results: Path, tokens: list[str]):
        self.nusc, self.cfg, self.verbose = database, config_factory("detection_cvpr_2019"), False
        self.sample_tokens = tokens
        limit = self.cfg.max_boxes_per_sample
        predictions, self.meta = load_prediction_of_sample_tokens(str(results), limit, DetectionBox, tokens)
        self.predictions = len(predictions.all)
        self.pred_boxes = self._counted(predictions)
        self.gt_boxes = self._counted(load_gt_of_sample_tokens(database, tokens, DetectionBox))

    def _counted(self, boxes: EvalBoxes) -> EvalBoxes:
        if not boxes.all:
            return boxes
        return filter_eval_boxes(self.nusc, add_center_dist(self.nusc, boxes), self.cfg.class_range)

    def ego(self) -> np.ndarray:
        """(samples, 2) the ego's place at the LiDAR's time."""
        data = [self.nusc.get("sample", token)["data"]["LIDAR_TOP"] for token in self.sample_tokens]
        poses = [self.nusc.get("ego_pose", self.nusc.get("sample_data", d)["ego_pose_token"]) for d in data]
        return np.array([pose["translation"][:2] for pose in poses]).reshape(-1, 2)


def _go_without_lidar(database: NuScenes) -> None:
    """Have the devkit take what the index and `evaluation.dataroot` take where the tables have no LiDAR.

    It asks LIDAR_TOP where the car was: here the key frame nearest to the sample's time says that. And it passes over
    boxes without a point: here nobody counted them.
    """
    nearest: dict[str, int] = {}
    for reading in database.sample_data:
        if reading["is_key_frame"]:
            sample = database.get("sample", reading["sample_token"])
            gap = abs(reading["timestamp"] - sample["timestamp"])
            if gap < nearest.get(sample["token"], math.inf):
                nearest[sample["token"]] = gap
                sample["data"][LIDAR] = reading["token"]
    if not any(box["num_lidar_pts"] for box in database.sample_annotation):
        for box in database.sample_annotation:
            box["num_lidar_pts"] = 1


def scores_of(result: DetectionMetrics, truth: EvalBoxes) -> dict:
    """The devkit's result and its counted true boxes, as the dict that `evaluation.metrics.evaluate` returns."""
    names = [box.detection_name for box in truth.all]
    distances = result.cfg.dist_ths
    classes = {
        name: {"AP": float(np.mean([result.get_label_ap(name, d) for d in distances]))}
        | {f"AP@{d}": float(result.get_label_ap(name, d)) for d in distances}
        | {short: _number(result.get_label_tp(name, long)) for long, short in ERRORS.items()}
        | {"ground_truth": names.count(name)}
        for name in CLASSES
    }
    means = {f"m{short}": result.tp_errors[long] for long, short in ERRORS.items()}
    return {"mAP": result.mean_ap, "NDS": result.nd_score, **means, "classes": classes}


def _flat(boxes: EvalBoxes, tokens: list[str]) -> FlatBoxes:
    records = ([box.serialize() for box in boxes[token]] for token in tokens)
    return FlatBoxes.joined(FlatBoxes.from_records(sample, part) for sample, part in enumerate(records))


def _differences(ours: dict, official: dict) -> str:
    pairs = {key: (ours[key], official[key]) for key in official if key != "classes"}
    for name, scores in official["classes"].items():
        pairs |= {f"{name} {key}": (ours["classes"][name][key], value) for key, value in scores.items()}
    return ", ".join(f"{k} {b} and {a}" for k, (a, b) in pairs.items() if not _same(a, b))


def _same(a: float | None, b: float | None) -> bool:
    return a is b or (a is not None and b is not None and abs(a - b) <= TOLERANCE)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
