"""One set of predictions, scored in every way there is: all give the numbers of the devkit's own `DetectionEval`."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.utils.splits import create_splits_scenes

from evaluation import quick
from evaluation.dataroot import check_dataset, read_truth, split_samples
from evaluation.devkit import SamplesEval, scores_of
from evaluation.flat import RACK, FlatBoxes, counted
from evaluation.ground_truth import ego, flat_truth, ground_truth, ground_truth_attributes
from evaluation.metrics import evaluate as our_metrics
from evaluation.official import RESULTS, evaluate, evaluation_split, unscored
from evaluation.results import read_results
from models.boxes import Boxes
from models.names import CATEGORY_TO_CLASS, EVALUATION_RANGE
from other_rig import without_lidar
from storage.index import Index, write_index
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest

VERSION = "v1.0-mini"


def detections(index, split: str) -> dict[int, Boxes]:
    """Noisy truth in and out of racks and range, missing and invented boxes, few scores."""
    random, out = np.random.default_rng(1), {}
    for sample in index.samples(split).tolist():
        rows = np.arange(len(index.box_label))[index.box_rows(sample)]
        rows = rows[(index.box_label[rows] >= 0) & (random.random(len(rows)) < 0.8)]
        rows = np.concatenate([rows, random.choice(rows, 5)])
        n = len(rows)
        out[sample] = Boxes(
            centers=index.box_center[rows] + random.normal(0, 0.4, (n, 3)),
            sizes=index.box_size[rows] * random.uniform(0.7, 1.3, (n, 3)),
            yaws=index.box_yaw[rows] + random.normal(0, 1, n),
            velocities=random.normal(0, 0.3, (n, 2)),
            labels=np.where(random.random(n) < 0.9, index.box_label[rows], random.integers(0, 10, n)),
            scores=random.choice([0.2, 0.4, 0.6, 0.8], n),
        )
    return out


def assert_same(result: dict, expected: dict) -> None:
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_same(result[key], value)
        elif isinstance(value, float):
            assert result[key] == pytest.approx(value, abs=1e-6), key
        else:
            assert result[key] == value, key


def test_every_way_gives_the_devkits_numbers(odd, tmp_path):
    index, dataroot = odd
    found = detections(index, "val")
    official = evaluate(index, dataroot, found, "val", tmp_path)
    config, file = config_factory("detection_cvpr_2019"), tmp_path / RESULTS
    database = NuScenes(version=VERSION, dataroot=str(dataroot), verbose=False)
    run = DetectionEval(database, config, str(file), "mini_val", output_dir=str(tmp_path), verbose=False)
    devkit = scores_of(run.evaluate()[0], run.gt_boxes)
    assert 0.05 < devkit["mAP"] < 0.9
    assert_same(official, devkit)
    in_the_index = quick.scores(index, found)
    assert_same(in_the_index, devkit)
    results = read_results(file)
    truth = read_truth(dataroot, VERSION, results.tokens)
    boxes = results.boxes[counted(results.boxes, truth.ego, truth.racks)]
    from_file = our_metrics(truth.boxes, boxes, truth.ego)
    assert_same(from_file, devkit)
    for other in (in_the_index, from_file):
        assert_same(other["bands"], official["bands"])
    assert len(truth.boxes) == len(run.gt_boxes.all)
    assert len(boxes) == len(run.pred_boxes.all) < official["predictions"]


def test_without_a_lidar_every_way_gives_the_devkits_numbers_too(odd, tmp_path):
    """Those that the devkit gives where a LiDAR has the pose that stands in for its own, and a point in every box."""
    _, dataroot = odd
    data = without_lidar(dataroot, tmp_path / "data")
    arrays, attributes, _ = ingest(data, VERSION, IngestConfig(lidar=False))
    write_index(tmp_path / "index.zarr", arrays, attributes)
    index = Index.open(tmp_path / "index.zarr")
    found = detections(index, "val")
    official = evaluate(index, data, found, "val", tmp_path)

    database = NuScenes(version=VERSION, dataroot=str(dataroot), verbose=False)
    for sample in database.sample:
        readings = {name: database.get("sample_data", token) for name, token in sample["data"].items()}
        lidar = readings.pop("LIDAR_TOP")
        nearest = min(readings.values(), key=lambda reading: abs(reading["timestamp"] - sample["timestamp"]))
        lidar["ego_pose_token"] = nearest["ego_pose_token"]
    for box in database.sample_annotation:
        box["num_lidar_pts"] = 1
    config, file = config_factory("detection_cvpr_2019"), tmp_path / RESULTS
    run = DetectionEval(database, config, str(file), "mini_val", output_dir=str(tmp_path), verbose=False)
    devkit = scores_of(run.evaluate()[0], run.gt_boxes)
    assert_same(official, devkit)
    assert_same(quick.scores(index, found), devkit)
    results = read_results(file)
    truth = read_truth(data, VERSION, results.tokens)
    boxes = results.boxes[counted(results.boxes, truth.ego, truth.racks)]
    assert_same(our_metrics(truth.boxes, boxes, truth.ego), devkit)
    check_dataset(data, VERSION)


def test_the_odd_world_has_what_it_is_for(odd):
    index, _ = odd
    assert (index.box_category == RACK).any()
    assert len(ground_truth(index, 0)) > 0
    samples = index.samples("val").tolist()
    names = partial(ground_truth_attributes, index)
    everything = FlatBoxes.joined(
        FlatBoxes.from_boxes(s, ground_truth(index, s).levelled(index.lidar_to_global(s)), names(s)) for s in samples
    )
    in_range = counted(everything, ego(index), {}).sum()
    assert 0 < len(flat_truth(index, samples)) < in_range < len(everything) < len(index.box_label)


def test_boxes_exactly_at_their_range(copy, tmp_path):
    """Each box is at its class's range, give or take the last bit: what the devkit drops, the tables' truth drops."""
    made = copy(VERSION)
    names = {c["token"]: c["name"] for c in made.read("category")}
    category = {i["token"]: names[i["category_token"]] for i in made.read("instance")}
    pose = {p["token"]: p["translation"] for p in made.read("ego_pose")}
    lidar = (d for d in made.read("sample_data") if d["is_key_frame"] and "/LIDAR_TOP/" in d["filename"])
    ego = {d["sample_token"]: pose[d["ego_pose_token"]] for d in lidar}
    boxes = made.read("sample_annotation")
    random = np.random.default_rng(0)
    for box in boxes:
        away = EVALUATION_RANGE[CATEGORY_TO_CLASS[category[box["instance_token"]]]]
        x, y, _ = ego[box["sample_token"]]
        box["translation"][:2] = [[x + away, y], [x, y - away], [x + 0.6 * away, y + 0.8 * away]][random.integers(3)]
    made.write("sample_annotation", boxes)
    tokens = split_samples(made.root, VERSION)["mini_val"]
    (tmp_path / "none.json").write_text(json.dumps({"meta": {}, "results": {token: [] for token in tokens}}))
    database = NuScenes(version=VERSION, dataroot=str(made.root), verbose=False)
    devkit = SamplesEval(database, tmp_path / "none.json", tokens).gt_boxes
    truth = read_truth(made.root, VERSION, tokens).boxes
    assert [len(devkit[token]) for token in tokens] == np.bincount(truth.sample, minlength=len(tokens)).tolist()
    assert 0 < len(truth) < len(boxes)


def test_a_splits_file_of_ones_own_with_the_devkits_names(copy, tmp_path):
    """The devkit takes `val` for its own split and refuses a version that is not called ...trainval."""
    own = copy("v1.0-own")
    own.write("splits", {"val": ["scene-0916"], "test": ["scene-0103"]})
    index = own.index()
    found = detections(index, "val")
    result = evaluate(index, own.root, found, "val", tmp_path)
    assert (result["split"], result["samples"]) == ("val", 2)
    assert_same(quick.scores(index, found), {k: result[k] for k in ("mAP", "NDS", "classes", "bands")})
    assert {name: len(tokens) for name, tokens in split_samples(own.root, "v1.0-own").items()} == {"val": 2, "test": 2}


def without_annotations(copy):
    """A version like v1.0-test: scenes of the devkit's test split, nothing annotated."""
    made = copy("v1.0-test")
    scenes = made.read("scene")
    for scene, name in zip(scenes, create_splits_scenes()["test"]):
        scene["name"] = name
    made.write("scene", scenes)
    for table in ("sample_annotation", "instance"):
        made.write(table, [])
    return made


def test_the_test_split_gives_a_submission_and_no_scores(copy, tmp_path):
    made = without_annotations(copy)
    index = made.index()
    assert evaluation_split(index) == "test"
    random = np.random.default_rng(0)
    n = 520
    boxes = Boxes(
        random.normal(size=(n, 3)), np.ones((n, 3)), np.zeros(n), np.zeros((n, 2)), np.arange(n) % 10, random.random(n)
    )
    assert evaluate(index, made.root, {0: boxes}, "test", tmp_path, use_camera=True) is None
    written = json.loads((tmp_path / RESULTS).read_text())
    assert written["meta"] == {
        "use_camera": True,
        "use_lidar": False,
        "use_radar": False,
        "use_map": False,
        "use_external": False,
    }
    assert set(written["results"]) == {s["token"] for s in made.read("sample")}
    assert [len(boxes) for boxes in written["results"].values()] == [500, 0, 0, 0]
    assert "v1.0-test has no annotations" in unscored(index, "test")
    assert "all 4 samples" in unscored(index, "test")


def test_val_comes_before_test(simulated, copy):
    assert evaluation_split(simulated[0]) == "val"
    own = copy("v1.0-own")
    own.write("splits", {"val": ["scene-0916"], "test": ["scene-0103"]})
    assert evaluation_split(own.index()) == "val"


def test_a_stage_without_predictions_of_a_sample(simulated):
    index, _ = simulated
    sample = int(index.samples("val")[0])
    nothing = replace(Boxes.empty(), scores=np.zeros(0))
    assert quick.scores(index, {sample: nothing})["mAP"] == 0
