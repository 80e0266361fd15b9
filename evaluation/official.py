"""The official nuScenes detection evaluation (devkit, detection_cvpr_2019) of predictions on one split."""

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
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

from evaluation import metrics, quick
from evaluation.flat import FlatBoxes
from evaluation.submission import submission
from models.boxes import Boxes
from models.names import CLASSES
from storage.atomic import write_json
from storage.index import Index

RESULTS = "results_nusc.json"
ERRORS = {"trans_err": "ATE", "scale_err": "ASE", "orient_err": "AOE", "vel_err": "AVE", "attr_err": "AAE"}
TOLERANCE = 1e-6  # between the devkit's numbers and ours


def evaluation_split(index: Index) -> str:
    """The split to predict: "val", or "test" where the dataset has test samples and none of val."""
    return "test" if len(index.samples("test")) and not len(index.samples("val")) else "val"


def unscored(index: Index, split: str) -> str:
    """What to say of a split without ground truth."""
    if split == "test":
        return (
            f"{index.version} has no annotations for its test split, so nothing is scored: `{RESULTS}` holds all "
            f"{len(index.samples(split))} samples and can be uploaded as it is."
        )
    return f"The {split} split has no ground truth, so nothing is scored: `{RESULTS}` holds the predictions."


def evaluate(
    index: Index,
    dataroot: Path,
    predictions: Mapping[int, Boxes],
    split: str,
    out: Path,
    attributes: Mapping[int, Sequence[str]] | None = None,
    use_camera: bool = False,
    use_lidar: bool = False,
) -> dict | None:
    """Write `out/results_nusc.json` for all samples of `split` ("train", "val", "test") and score it.

    Samples of the split without predictions count as empty; samples of other splits raise ValueError. Returns None if
    the split has no ground truth (`v1.0-test`, an empty val split). Otherwise a JSON-able dict:
    `mAP`, `NDS`, `mATE mASE mAOE mAVE mAAE`, `split` (the devkit's name), `samples`, `predictions` (boxes),
    `classes`: name -> `AP`, `AP@0.5 .. AP@4.0` (m), `ATE ASE AOE AVE AAE` (None where undefined for the class) and
    `ground_truth` (boxes counted; where 0, the devkit gives AP 0 and errors 1), and `bands`, which is ours
    (`evaluation.metrics`): the same by distance from the ego.

    The devkit reads the categories by a table of its own. Where the dataset has others (`ingest.classes`), our metrics
    score the index's boxes instead, and `own_classes` in the result says so; they are the devkit's to TOLERANCE.
    """
    samples = index.samples(split)
    if foreign := set(predictions) - set(samples.tolist()):
        raise ValueError(f"predictions for samples that are not in the {split} split: {sorted(foreign)[:5]}")
    empty = replace(Boxes.empty(), scores=np.zeros(0))
    full = {int(s): predictions.get(int(s), empty) for s in samples}
    names = None if attributes is None else {s: attributes.get(s, []) for s in full}
    content = submission(index, full, names, use_camera, use_lidar)
    write_json(out / RESULTS, content)
    if not any(_has_annotations(index, s) for s in full):
        return None
    if index.own_classes:
        ours = quick.scores(index, full, names)
        facts = {"split": index.split_names[split], "samples": len(full)}
        facts["predictions"] = sum(map(len, content["results"].values()))
        return ours | facts | {"own_classes": index.own_classes}
    return score(out / RESULTS, dataroot, index.version, list(content["results"]), index.split_names[split])


def score(results: Path, dataroot: Path, version: str, tokens: list[str], split: str) -> dict:
    """What `evaluate` returns, of a results file that holds the samples `tokens`, all those of a split, in its order.

    Raises RuntimeError where our own metrics of the same boxes differ from the devkit's: one of the two is wrong.
    """
    with contextlib.redirect_stderr(io.StringIO()):  # the devkit draws progress bars whatever `verbose` says
        run = SamplesEval(NuScenes(version=version, dataroot=str(dataroot), verbose=False), results, tokens)
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


def _has_annotations(index: Index, sample: int) -> bool:
    return bool((index.box_label[index.box_rows(sample)] >= 0).any())


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
