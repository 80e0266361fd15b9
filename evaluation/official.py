"""The official nuScenes detection evaluation (devkit, detection_cvpr_2019) of predictions on one split."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from evaluation import quick
from evaluation.submission import RESULTS, submission
from models.boxes import Boxes
from storage.atomic import write_json
from storage.index import Index


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
    score the index's boxes instead, and `own_classes` in the result says so; they are the devkit's to TOLERANCE
    (`evaluation.devkit`).
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
    from evaluation.devkit import score  # takes seconds, of which those who train or write a test split have no need

    return score(out / RESULTS, dataroot, index.version, list(content["results"]), index.split_names[split])


def _has_annotations(index: Index, sample: int) -> bool:
    return bool((index.box_label[index.box_rows(sample)] >= 0).any())
