"""The stage `evaluate`: predictions, scores, pictures and report of a detector that is there."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from models.bevdet.layout import bevdet_to_public
from storage.artifact import Artifact
from storage.index import write_index
from tasks.engine.stage import Inputs
from tasks.finetune.config import EvaluateConfig
from tasks.finetune.report import report
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest

EVALUATE = EvaluateConfig(score_threshold=0.0)  # as in World.evaluate


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    return world.finetune(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def finished(world, trained, tmp_path_factory):
    return world.evaluate(tmp_path_factory.mktemp("finished"), trained)


def test_a_detector_is_scored_and_reported(world, finished):
    folder, summary = finished
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["split"] == "mini_val"
    assert metrics["samples"] == 4
    assert metrics["predictions"] > 0
    assert summary == {"mAP": metrics["mAP"], "NDS": metrics["NDS"]}
    results = json.loads((folder / "results_nusc.json").read_text())
    assert results["meta"]["use_camera"]
    assert set(results["results"]) == {str(world.index.token[s]) for s in world.index.samples("val")}
    report = (folder / "report.md").read_text()
    assert f"mAP {summary['mAP']:.4f}, NDS {summary['NDS']:.4f} on mini_val (4 samples)" in report
    assert "2 training samples, 3 steps of 2 from pretrained weights, seed 0." in report


def test_the_worst_samples_are_shown_and_listed(finished):
    folder, _ = finished
    listed = json.loads((folder / "detections.json").read_text())
    counts = [sum(sum(entry[kind].values()) for kind in ("missed", "false")) for entry in listed]
    assert counts == sorted(counts, reverse=True)
    assert len(listed) == 4
    report = (folder / "report.md").read_text()
    for place, entry in enumerate(listed, 1):
        assert entry["picture"] == f"detections_{place}.png"
        assert Image.open(folder / entry["picture"]).size[0] > 1440
        assert f"| {entry['picture']} | {entry['scene']} | {entry['sample']} |" in report


def test_without_a_val_split_the_test_splits_predictions_come_out(world, trained, tmp_path):
    """As with v1.0-test, but for scenes to train on: the test scenes have no annotations."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("samples", "sweeps", "maps"):
        (data / name).symlink_to(world.inputs.dataroot / name)
    shutil.copytree(world.inputs.dataroot / "v1.0-mini", data / "v1.0-test")
    (data / "v1.0-test" / "splits.json").write_text('{"train": ["scene-0061"], "test": ["scene-0103", "scene-0916"]}')
    unseen = {str(world.index.token[s]) for s in world.index.samples("val")}
    boxes = json.loads((data / "v1.0-test" / "sample_annotation.json").read_text())
    boxes = [box for box in boxes if box["sample_token"] not in unseen]
    (data / "v1.0-test" / "sample_annotation.json").write_text(json.dumps(boxes))
    ingested = Artifact(tmp_path, "ingest", "ingest")
    arrays, attributes, _ = ingest(data, "v1.0-test", IngestConfig())
    write_index(ingested.path / "index.zarr", arrays, attributes)
    folder, summary = world.evaluate(tmp_path, trained, Inputs(data, "v1.0-test", {"ingest": ingested}))
    assert summary == {}
    written = json.loads((folder / "results_nusc.json").read_text())
    assert set(written["results"]) == unseen
    assert any(written["results"].values())
    assert (written["meta"]["use_camera"], written["meta"]["use_lidar"]) == (True, False)
    assert "v1.0-test has no annotations for its test split" in (folder / "report.md").read_text()
    assert (folder / "detections_1.png").is_file()


@pytest.mark.parametrize("layout", ["ours", "public"])
def test_a_checkpoint_is_evaluated_as_it_is(world, trained, finished, tmp_path, layout, capsys):
    folder, summary = finished
    file = trained.path / "detector.safetensors"
    if layout == "public":
        state = bevdet_to_public(load_file(file))
        extra = {"img_view_transformer.frustum": torch.ones(3), "aux.weight": torch.ones(1)}
        torch.save({"state_dict": state | extra}, file := tmp_path / "epoch_20_ema.pth")
    inputs, settings = world.without("pretrain", "depth"), EVALUATE.model_copy(update={"checkpoint": str(file)})
    given, evaluated = world.evaluate(tmp_path, None, inputs, settings)
    assert evaluated == summary
    name = "results_nusc.json"
    assert json.loads((given / name).read_text()) == json.loads((folder / name).read_text())
    coverage = (given / "coverage.txt").read_text()
    assert coverage.splitlines()[0] == f"{file.name}, {'geomim' if layout == 'ours' else 'bevdet'} layout"
    assert "filled: backbone (" in coverage
    assert ("ignored: aux" in coverage) == (layout == "public")
    assert coverage.strip() in capsys.readouterr().err
    assert "a checkpoint, evaluated as it is" in (given / "report.md").read_text()
    assert not list(given.glob("*.safetensors"))


def test_the_report_says_what_training_skipped(world):
    summary = {"steps": 4, "train_samples": 16}
    for more, told in (
        ({}, "seed 0."),
        ({"skipped_steps": 2}, "seed 0; 2 of these steps were not finite and taught nothing."),
        ({"skip_samples": ["a", "b"]}, "seed 0; left out by finetune.skip_samples: a, b."),
    ):
        line = report(world.config, None, summary | more, "nothing", []).splitlines()[2]
        assert line.endswith(f"16 training samples, 4 steps of 2 from pretrained weights, {told}")


def test_what_counts_is_chosen_after_training(world, trained, finished, tmp_path):
    """Another threshold and another suppression, of the same weights."""
    fewer = EVALUATE.model_copy(update={"score_threshold": 0.5, "nms": "circle", "pictures": 1})
    folder, _ = world.evaluate(tmp_path, trained, settings=fewer)
    counts = [json.loads((f / "metrics.json").read_text())["predictions"] for f in (folder, finished[0])]
    assert counts[0] < counts[1]
    assert len(list(folder.glob("detections_*.png"))) == 1
