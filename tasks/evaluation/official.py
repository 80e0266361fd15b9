"""The official nuScenes detection evaluation (devkit, detection_cvpr_2019) of predictions on one split."""

import contextlib
import io
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.boxes import Boxes
from models.names import CLASSES
from storage.atomic import write_json
from storage.index import Index
from tasks.evaluation.submission import submission

RESULTS = "results_nusc.json"
ERRORS = {"trans_err": "ATE", "scale_err": "ASE", "orient_err": "AOE", "vel_err": "AVE", "attr_err": "AAE"}
OUT_OF_RANGE = 1e4  # m from the ego; every class's range ends far before


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
    `ground_truth` (boxes counted; where 0, the devkit gives AP 0 and errors 1).
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
    count = sum(len(boxes) for boxes in content["results"].values())
    if count == 0:
        content["results"][str(index.token[samples[0]])] = [_box_out_of_range(index, int(samples[0]))]
    return _score(content, index.version, dataroot, index.split_names[split]) | {"predictions": count}


def _has_annotations(index: Index, sample: int) -> bool:
    return bool((index.box_label[index.box_rows(sample)] >= 0).any())


def _box_out_of_range(index: Index, sample: int) -> dict:
    """A box the evaluation drops for its distance: the devkit cannot read a file without any box."""
    return {
        "sample_token": str(index.token[sample]),
        "translation": (index.lidar_ego_to_global[sample][:3, 3] + [OUT_OF_RANGE, 0, 0]).tolist(),
        "size": [1.0, 1.0, 1.0],
        "rotation": [1.0, 0.0, 0.0, 0.0],
        "velocity": [0.0, 0.0],
        "detection_name": CLASSES[0],
        "detection_score": 0.0,
        "attribute_name": "",
    }


def _score(content: dict, version: str, dataroot: Path, devkit_split: str) -> dict:
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    # The devkit draws progress bars on stderr whatever `verbose` says, and makes a folder for plots.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        results = Path(folder) / RESULTS
        write_json(results, content)
        database = NuScenes(version=version, dataroot=str(dataroot), verbose=False)
        config = config_factory("detection_cvpr_2019")
        run = DetectionEval(database, config, str(results), devkit_split, output_dir=folder, verbose=False)
        metrics, _ = run.evaluate()
    counted = [box.detection_name for box in run.gt_boxes.all]
    aps = {name: {d: metrics.get_label_ap(name, d) for d in config.dist_ths} for name in CLASSES}
    classes = {
        name: {"AP": float(np.mean(list(aps[name].values())))}
        | {f"AP@{distance}": float(ap) for distance, ap in aps[name].items()}
        | {short: _number(metrics.get_label_tp(name, long)) for long, short in ERRORS.items()}
        | {"ground_truth": counted.count(name)}
        for name in CLASSES
    }
    return {
        "mAP": metrics.mean_ap,
        "NDS": metrics.nd_score,
        **{f"m{short}": metrics.tp_errors[long] for long, short in ERRORS.items()},
        "split": devkit_split,
        "samples": len(run.sample_tokens),
        "classes": classes,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
