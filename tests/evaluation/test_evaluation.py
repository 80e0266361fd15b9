import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import table
from evaluation.ground_truth import ground_truth, ground_truth_attributes
from evaluation.official import RESULTS, evaluate
from evaluation.quick import annotated_samples, average_precisions
from evaluation.submission import MAX_BOXES, submission, write_submission
from models.boxes import Boxes
from models.geometry import inverse, rotation_z, transform
from models.names import CATEGORY_TO_CLASS, CLASSES, MOTION_ATTRIBUTES
from storage.index import Index

REAL = Path(__file__).parents[3] / "shared" / "real-keyframe"
ERRORS = ("ATE", "ASE", "AOE", "AVE", "AAE")


def truth_of(index: Index, split: str) -> tuple[dict, dict]:
    samples = index.samples(split).tolist()
    return {s: ground_truth(index, s) for s in samples}, {s: ground_truth_attributes(index, s) for s in samples}


def test_ground_truth_of_the_real_key_frame_scores_one(real, tmp_path):
    boxes, attributes = truth_of(real, "train")
    result = evaluate(real, REAL, boxes, "train", tmp_path, attributes)
    present = {name: scores for name, scores in result["classes"].items() if scores["ground_truth"] > 0}
    assert set(present) == {"car", "truck", "barrier", "pedestrian", "traffic_cone"}
    for scores in present.values():
        assert scores["AP"] == pytest.approx(1, abs=1e-9)
        assert max(scores[e] or 0 for e in ("ATE", "ASE", "AOE", "AAE")) < 5e-5
    assert result["split"] == "mini_train"
    assert result["samples"] == 1
    assert present["traffic_cone"]["AOE"] is None


def test_ground_truth_of_the_simulated_val_split_is_perfect(simulated, tmp_path):
    index, dataroot = simulated
    boxes, attributes = truth_of(index, "val")
    result = evaluate(index, dataroot, boxes, "val", tmp_path, attributes)
    assert result["mAP"] == pytest.approx(1, abs=1e-9)
    assert max(result[f"m{error}"] for error in ERRORS) < 5e-5
    assert result["NDS"] == pytest.approx(1, abs=5e-5)


def test_worse_boxes_score_worse(real, tmp_path):
    boxes, attributes = truth_of(real, "train")
    perfect = evaluate(real, REAL, boxes, "train", tmp_path, attributes)
    shifted = {s: replace(b, centers=b.centers + np.array([0.7, 0, 0]), yaws=b.yaws + 0.1) for s, b in boxes.items()}
    result = evaluate(real, REAL, shifted, "train", tmp_path, attributes)
    car = result["classes"]["car"]
    assert car["AP@0.5"] == 0
    assert car["AP@1.0"] == pytest.approx(1)
    assert car["ATE"] == pytest.approx(0.7, abs=1e-3)
    assert car["AOE"] == pytest.approx(0.1, abs=1e-3)
    assert result["NDS"] < perfect["NDS"]


def test_the_quick_precision_is_the_official_one(simulated, tmp_path):
    index, dataroot = simulated
    random = np.random.default_rng(0)
    boxes = {}
    for sample, truth in truth_of(index, "val")[0].items():
        kept = truth[random.random(len(truth)) < 0.8]
        shift = random.normal(0, 0.6, (len(kept), 3)) * [1, 1, 0]
        boxes[sample] = replace(kept, centers=kept.centers + shift, scores=random.random(len(kept)))
    official = evaluate(index, dataroot, boxes, "val", tmp_path)["classes"]
    quick = average_precisions(index, boxes)
    assert quick == pytest.approx({n: c["AP"] for n, c in official.items() if c["ground_truth"]}, abs=1e-9)
    assert 0.1 < np.mean(list(quick.values())) < 0.9


def test_annotated_samples_are_spread_over_val(simulated, real):
    index, _ = simulated
    val = index.samples("val")
    assert annotated_samples(index, 99).tolist() == val.tolist()
    assert annotated_samples(index, 2).tolist() == [val[0], val[-1]]
    assert annotated_samples(real, 5).tolist() == [0]  # no val: train
    assert len(annotated_samples(index, 0)) == 0


def test_nothing_predicted_scores_zero(real, tmp_path):
    result = evaluate(real, REAL, {}, "train", tmp_path)
    assert (result["mAP"], result["NDS"], result["predictions"]) == (0, 0, 0)
    assert result["classes"]["car"]["ground_truth"] == 4
    assert "nothing was predicted" in table.summary_line(result)
    written = json.loads((tmp_path / RESULTS).read_text())
    assert written["results"] == {str(real.token[0]): []}


def test_a_split_without_ground_truth_gives_only_the_file(real, tmp_path):
    assert evaluate(real, REAL, {}, "val", tmp_path) is None
    assert json.loads((tmp_path / RESULTS).read_text())["results"] == {}


def test_predictions_of_another_split_are_refused(real, tmp_path):
    with pytest.raises(ValueError, match="not in the val split"):
        evaluate(real, REAL, {0: ground_truth(real, 0)}, "val", tmp_path)


def test_boxes_without_points_are_no_ground_truth(real):
    rows = real.box_rows(0)
    counted = (real.box_lidar_points[rows] + real.box_radar_points[rows] > 0) & (real.box_label[rows] >= 0)
    assert len(ground_truth(real, 0)) == counted.sum() < len(counted)


@dataclass
class TiltedIndex:
    """What a submission reads of an index: one sample whose LIDAR frame leans against the global one."""

    lidar_to_ego: np.ndarray
    lidar_ego_to_global: np.ndarray
    token: list = field(default_factory=lambda: ["sample"])
    lidar_to_global = Index.lidar_to_global


def tilted(roll: float, pitch: float, yaw: float) -> np.ndarray:
    def turn(axis: int, angle: float) -> np.ndarray:
        other = [(1, 2, 0), (2, 0, 1)][axis]
        return rotation_z(angle)[np.ix_(other, other)]

    return transform(rotation_z(yaw) @ turn(0, pitch) @ turn(1, roll), np.array([600.0, 1600.0, 2.0]))


@settings(max_examples=50, deadline=None)
@given(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.floats(-3, 3), st.integers(0, 1000))
def test_to_global_undoes_the_way_into_a_tilted_lidar_frame(roll, pitch, yaw, seed):
    random, n = np.random.default_rng(seed), 5
    level = Boxes(
        centers=random.normal(size=(n, 3)) * 20,
        sizes=random.uniform(0.5, 5, (n, 3)),
        yaws=random.uniform(-np.pi, np.pi, n),
        velocities=random.normal(size=(n, 2)) * 5,
        labels=random.integers(0, 10, n),
        scores=np.ones(n),
    )
    lidar_to_global = tilted(roll, pitch, yaw)
    back = level.moved(inverse(lidar_to_global)).levelled(lidar_to_global)
    np.testing.assert_allclose(back.centers, level.centers, atol=1e-9)
    np.testing.assert_allclose(np.exp(1j * back.yaws), np.exp(1j * level.yaws), atol=1e-9)
    np.testing.assert_allclose(back.velocities, level.velocities, atol=1e-9)


def some_boxes(n: int) -> Boxes:
    return Boxes(
        np.zeros((n, 3)), np.ones((n, 3)), np.zeros(n), np.zeros((n, 2)), np.arange(n) % 10, np.linspace(0, 1, n)
    )


FLAT = TiltedIndex(np.eye(4)[None], np.eye(4)[None])


def test_the_best_boxes_are_kept_up_to_the_limit():
    records = submission(FLAT, {0: some_boxes(MAX_BOXES + 20)})["results"]["sample"]
    assert len(records) == MAX_BOXES
    assert records[0]["detection_score"] == 1.0
    assert min(r["detection_score"] for r in records) == pytest.approx(20 / (MAX_BOXES + 19))


def test_attributes_follow_motion_and_unknown_velocity_counts_as_standing():
    boxes = some_boxes(20)
    boxes.velocities[:10] = [0.5, 0]
    boxes.velocities[10:] = np.nan
    records = submission(FLAT, {0: boxes})["results"]["sample"]
    for record in records:
        moving, standing = MOTION_ATTRIBUTES[record["detection_name"]]
        assert record["attribute_name"] == (moving if record["detection_score"] < 0.5 else standing)
        assert np.isfinite(record["velocity"]).all()
    assert {r["detection_name"] for r in records} == set(CLASSES)


@pytest.mark.parametrize(("name", "value"), [("centers", np.nan), ("yaws", np.nan), ("sizes", 0.0), ("scores", np.nan)])
def test_boxes_the_devkit_would_choke_on_are_refused(name, value, tmp_path):
    boxes = some_boxes(3)
    getattr(boxes, name)[1] = value
    with pytest.raises(ValueError, match="sample sample: a predicted box"):
        write_submission(tmp_path / "results.json", FLAT, {0: boxes})
    assert list(tmp_path.iterdir()) == []


def test_tables_show_four_decimals_and_mark_classes_without_ground_truth(real, tmp_path):
    boxes, attributes = truth_of(real, "train")
    result = evaluate(real, REAL, boxes, "train", tmp_path, attributes)
    text = table.text(result)
    lines = {line.split()[0]: line.split() for line in text[: text.index(table.BAND_NOTE)].splitlines() if line}
    assert lines["car"][1:5] == ["1.0000", "0.0000", "0.0000", "0.0000"]
    assert lines["bus"][1:] == ["-"] * 6 + ["none"]
    assert lines["mean"][1] == "0.5000"
    assert "| car | 1.0000 |" in table.markdown(result)
    assert "no ground truth for construction_vehicle, bus" in table.markdown(result)
    bands = {line[:7].strip(): line.split() for line in text[text.index(table.BAND_NOTE) :].splitlines()}
    found = {name: int(bands[name][-1]) for name in ("0-20 m", "20-35 m", "35-50 m")}
    assert sum(found.values()) == int(lines["mean"][-1])
    assert bands["0-20 m"][2] == "1.0000"
    car = [band["classes"]["car"]["ground_truth"] for band in result["bands"].values()]
    assert sum(car) == 4
    cells = [f"1.0000 ({count})" if count else "-" for count in car]
    assert f"| car | {' | '.join(cells)} |" in table.markdown(result)
    worse = result | {"mAP": 0.25, "mATE": 0.75, "mASE": result["mASE"]}
    compared = table.comparison({"pretrained": result | {"mATE": 0.5}, "baseline": worse})
    assert "| mAP | 0.5000 | 0.2500 | +0.2500 |" in compared
    assert "| mATE | 0.5000 | 0.7500 | +0.2500 |" in compared
    assert f"| mASE | {result['mASE']:.4f} | {result['mASE']:.4f} | +0.0000 |" in compared
    assert "| AP car | 1.0000 | 1.0000 | +0.0000 |" in compared
    assert "| AP bus | - | - | - |" in compared


def test_a_dataset_with_categories_of_its_own_is_scored_as_if_they_were_nuscenes(simulated, copy, tmp_path):
    """The devkit knows its own names alone; on the same boxes under those names it says the same."""
    plain, dataroot = simulated
    own = copy("v1.0-mini")
    rows = own.read("category")
    classes = {row["name"].upper(): CATEGORY_TO_CLASS.get(row["name"], "ignore") for row in rows}
    own.write("category", [row | {"name": row["name"].upper()} for row in rows])
    index = own.index(classes)
    random, boxes = np.random.default_rng(3), {}
    for sample, truth in truth_of(plain, "val")[0].items():
        kept = truth[random.random(len(truth)) < 0.8]
        shift = random.normal(0, 0.6, (len(kept), 3)) * [1, 1, 0]
        boxes[sample] = replace(kept, centers=kept.centers + shift, scores=random.random(len(kept)))
    official = evaluate(plain, dataroot, boxes, "val", tmp_path)
    result = evaluate(index, own.root, boxes, "val", tmp_path)
    assert result.pop("own_classes") == classes
    assert result.keys() == official.keys()
    assert 0.1 < official["mAP"] < 0.9
    for key in official.keys() - {"classes", "bands"}:
        assert result[key] == (pytest.approx(official[key], abs=1e-6) if key.startswith(("m", "N")) else official[key])
    for name, scores in official["classes"].items():
        assert result["classes"][name] == pytest.approx(scores, abs=1e-6, nan_ok=True)
    assert "since the devkit does not know the categories" in table.summary_line(result | {"own_classes": classes})
    assert "devkit" not in table.summary_line(official)
