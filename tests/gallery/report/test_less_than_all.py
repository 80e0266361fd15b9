"""Reports of runs that are unfinished, damaged, of other kinds, or whose data is gone: what there is, and sentences."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest

from driver import TINY
from evaluation.occupancy import OccupancyScore
from evaluation.segmentation import SegmentationScore
from flows.cli import app
from models.names import BEV_LAYERS, OCCUPANCY_CLASSES
from report_pages import report
from storage.artifact import Artifact
from storage.atomic import write_json
from tasks.engine.config import load_config
from tasks.engine.plan import make_plan

MISSING = "What this report could not show"


def flip(file):
    """Another byte, in the same number of them."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def finish(cli, name, files, *overrides):
    """A stage of a config of its own, as if it had run and left these files."""
    options = [word for override in overrides for word in ("--set", override)]
    config = load_config(TINY, list(overrides), cli.dataroot)
    step = next(p for p in make_plan(config, cli.root) if p.name == name).ready()
    step.artifact.begin(step.recipe, step.inputs.artifacts)
    for file, content in files.items():
        if isinstance(content, bytes):
            (step.artifact.path / file).write_bytes(content)
        else:
            write_json(step.artifact.path / file, content)
    step.artifact.finish(step.recipe, {}, 1.0, {"step": step.as_json()}, ("*",))
    return options


def test_an_unfinished_run_shows_what_there_is(own, tmp_path):
    shutil.rmtree(own.path("evaluate"))
    training = own.path("finetune")
    Artifact(own.root, "finetune", training.name).unfinish()
    with (training / "log" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 9, "loss": 1')  # killed
    page = report(own, tmp_path / "r.html")
    assert "There are no scores yet: finetune, evaluate still to run" in page.text
    assert "mAP, pretrained" not in page.text
    assert "finetune ◐ " in page.text
    assert "evaluate ○ to run" in page.text
    assert "pretrained: 4 steps" in page.text  # of its curves
    assert len(page.of("img")) >= 3
    assert MISSING not in page.text


def test_a_run_that_never_began(own, tmp_path):
    page = report(own, tmp_path / "r.html", "--root", tmp_path / "none")
    assert "0 of" in page.text
    assert "ingest ○ to run" in page.text
    assert page.of("img") == []
    assert not (tmp_path / "none").exists()


def test_damaged_predictions_cost_their_curves_alone(own, tmp_path, metrics):
    flip(own.path("evaluate") / "results_nusc.json")
    page = report(own, tmp_path / "r.html")
    assert MISSING in page.text
    assert "The precision-recall curves of pretrained left out:" in page.text
    assert "results_nusc.json has other bytes than were written: run `geomim repair" in page.text
    assert f"mAP, pretrained {metrics['pretrained']['mAP']:.4f}" in page.text


def test_damaged_scores_are_not_shown(own, tmp_path, metrics):
    file = own.path("evaluate") / "metrics.json"
    file.write_text(file.read_text()[:-40])
    page = report(own, tmp_path / "r.html")
    assert "evaluate ✕ damaged" in page.text
    assert "The scores of evaluate left out" in page.text
    assert f"{metrics['pretrained']['mAP']:.4f}" not in page.text
    assert "There are no scores yet" in page.text
    assert "(damaged: metrics.json has" in page.text


@pytest.mark.parametrize(
    ("stage", "file", "words"),
    [
        ("pretrain", "pretrain.png", "The picture pretrain.png of pretraining left out"),
        ("pretrain", "metrics.jsonl", "The curves of pretrain left out"),
        ("depth", "depth.zarr/zarr.json", "depth cache left out"),
        ("teacher", "bev.zarr/zarr.json", "The picture of the teacher's features left out"),
        ("ingest", "index.zarr/zarr.json", "The samples of ingest left out"),
        ("evaluate", "manifest.json", "evaluate ✕ damaged"),
    ],
)
def test_other_damage_costs_its_own_figures(own, tmp_path, stage, file, words):
    (own.path(stage) / file).write_text("{}")
    page = report(own, tmp_path / "r.html")
    assert words in page.text
    assert "mAP, baseline" in page.text


def test_without_the_dataroot_scores_and_curves_are_found_by_their_settings(own, tmp_path, metrics):
    nowhere = tmp_path / "nowhere"
    gone = report(own, tmp_path / "r.html", "--dataroot", nowhere)
    assert f"Pictures are left out, since the dataroot {nowhere} is not there" in gone.text
    for arm, scores in metrics.items():
        assert f"NDS, {arm} {scores['NDS']:.4f}" in gone.text
    assert "Precision over recall" in gone.text
    assert len(gone.of("img")) == 2  # the teacher's map, and what pretraining drew
    other = report(own, tmp_path / "o.html", "--dataroot", nowhere, "--set", "finetune.steps=5")
    assert "There are no scores yet" in other.text
    assert "Pretraining" in other.text


def test_images_that_are_gone_cost_pictures_alone(own, tmp_path, metrics, world):
    data = shutil.copytree(world, tmp_path / "data")
    shutil.rmtree(data / "samples" / "CAM_FRONT")
    page = report(own, tmp_path / "r.html", "--dataroot", data)
    assert "The data is not what was ingested (" in page.text
    assert "The picture of what pretrained predicts left out: " in page.text
    assert f"NDS, pretrained {metrics['pretrained']['NDS']:.4f}" in page.text
    tables = json.loads((data / "v1.0-mini" / "sample.json").read_text())
    (data / "v1.0-mini" / "sample.json").write_text(json.dumps(tables[:-1]))
    other = report(own, tmp_path / "o.html", "--dataroot", data)
    assert "0 of" in other.text  # other data: another run


def test_a_run_without_baseline_claims_no_gain(own, tmp_path, metrics):
    page = report(own, tmp_path / "r.html", "--set", "finetune.baseline=false")
    assert "without a second arm this says nothing on what pretraining is worth" in page.text
    assert "gain" not in page.text.split("Stages")[0]
    assert f"NDS is {metrics['pretrained']['NDS']:.4f}" in page.text


def test_a_checkpoint_that_is_evaluated_as_it_is(own, tmp_path, metrics):
    evaluated, weights = own.path("evaluate"), own.path("finetune") / "detector.safetensors"
    files = {name: (evaluated / name).read_bytes() for name in ("metrics.json", "results_nusc.json")}
    options = finish(own, "evaluate", files, f"evaluate.checkpoint={json.dumps(str(weights))}")
    page = report(own, tmp_path / "r.html", *options)
    assert f"Checkpoint, NDS is {metrics['pretrained']['NDS']:.4f}" in page.text
    assert "2 of 2 stages finished" in page.text
    assert "Precision over recall" in page.text


def segmentation():
    random, score = np.random.default_rng(0), SegmentationScore(51.2, 1.6)
    score.add(random.random((len(BEV_LAYERS), 64, 64)), random.random((len(BEV_LAYERS), 64, 64)) < 0.5)
    return score.result()


def occupancy():
    random, score = np.random.default_rng(0), OccupancyScore()
    predicted, labels = random.integers(0, len(OCCUPANCY_CLASSES) - 1, (2, 20, 20, 4))
    score.add(predicted, labels, random.random(labels.shape) < 0.7)
    return score.result()


@pytest.mark.parametrize(("task", "made"), [("segmentation", segmentation), ("occupancy", occupancy)])
def test_maps(own, tmp_path, task, made):
    settings = [f"finetune.task={task}", "finetune.view.key_ego=lidar"]
    grid = ["bev_range=40", "bev_cell=2.5", "bev_rotation=0", "bev_scale=0"]
    settings += [f"finetune.{field}" for field in grid] if task == "occupancy" else []
    scores = made()
    other = json.loads(json.dumps(scores)) | {"mIoU": scores["mIoU"] / 2}
    options = finish(own, "evaluate", {"metrics.json": scores}, *settings)
    finish(own, "evaluate-baseline", {"metrics.json": other}, *settings)
    page = report(own, tmp_path / "r.html", *options)
    assert f"mIoU, gain {scores['mIoU'] / 2:+.4f}" in page.text
    assert f"mIoU is {scores['mIoU']:.4f}, {scores['mIoU'] / 2:.4f} more than without (+100%)" in page.text
    for name, values in (scores.get("layers") or scores["classes"]).items():
        if values["IoU"] is not None:
            assert f"{name} {values['IoU']:.4f}" in page.text
    assert "Precision over recall" not in page.text


def test_mistakes_are_one_sentence(own, tmp_path, capsys, monkeypatch):
    from flows import cli

    for words, told in (
        (["report", "--root", str(own.root)], "no dataroot is given"),
        ([*own.command("report", "--out", tmp_path)[1:]], "is a folder; name a file such as"),
    ):
        monkeypatch.setattr("sys.argv", ["geomim", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 2
        assert told in capsys.readouterr().err
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        app(["report", "--help"], standalone_mode=False)
    assert "geomim report --config configs/demo.yaml --open" in " ".join(printed.getvalue().split())
