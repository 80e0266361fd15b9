import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from models.layouts import swin_to_mmdet
from storage.artifact import Artifact
from storage.index import write_index
from tasks.errors import UserError
from tasks.finetune.network import build_detector, load_backbone, parameter_groups
from tasks.finetune.run import run
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest
from tasks.stage import Inputs

ROOT = Path(__file__).parents[3]

# The stage in a process that kills itself before its n-th step; argv = config, dataroot, artifacts' root, folder, n.
KILLED = """
import os, signal, sys
from pathlib import Path
from storage.artifact import Artifact
from tasks.finetune import run as stage
from tasks.finetune.config import FinetuneConfig
from tasks.stage import Inputs

config, dataroot, root, folder, fatal = sys.argv[1:]
inputs = Inputs(Path(dataroot), "v1.0-mini", {n: Artifact(Path(root), n, n) for n in ("ingest", "depth", "pretrain")})
steps, original = [0], stage.loss_terms

def loss_terms(*arguments):
    if steps[0] == int(fatal):
        os.kill(os.getpid(), signal.SIGKILL)
    steps[0] += 1
    return original(*arguments)

stage.loss_terms = loss_terms
stage.run(FinetuneConfig.model_validate_json(config), inputs, Artifact(Path(folder), "finetune", "0" * 16))
"""


def in_a_process(world, folder: Path, fatal: int) -> int:
    arguments = [
        world.config.model_dump_json(),
        str(world.inputs.dataroot),
        str(world.inputs["ingest"].root),
        str(folder),
        str(fatal),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, cwd=ROOT).returncode


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    artifact = Artifact(tmp_path_factory.mktemp("finished"), "finetune", "0" * 16)
    artifact.path.mkdir(parents=True)
    torch.rand(5)  # whatever the process drew before must not matter
    return artifact, run(world.config, world.inputs, artifact)


def test_both_arms_are_trained_scored_and_compared(world, finished):
    artifact, summary = finished
    assert set(summary) == {"steps", "train_samples", "pretrained", "scratch"}
    metrics = json.loads((artifact.path / "metrics.json").read_text())
    for arm in ("pretrained", "scratch"):
        assert metrics[arm]["split"] == "mini_val"
        assert metrics[arm]["samples"] == 4
        assert metrics[arm]["predictions"] > 0
        assert summary[arm] == {"mAP": metrics[arm]["mAP"], "NDS": metrics[arm]["NDS"]}
        log = [json.loads(line) for line in (artifact.path / arm / "log" / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in log] == list(range(world.config.steps))
        assert {"task0.heatmap", "task0.box", "depth"} <= set(log[0])
        assert not (artifact.path / arm / "checkpoint.pt").exists()
        assert list((artifact.path / arm / "log").glob("events*"))
    results = json.loads((artifact.path / "results_nusc.json").read_text())
    assert results["meta"]["use_camera"]
    assert set(results["results"]) == {str(world.index.token[s]) for s in world.index.samples("val")}
    report = (artifact.path / "report.md").read_text()
    assert "## Gain" in report
    assert f"| mAP | {summary['pretrained']['mAP']:.4f} | {summary['scratch']['mAP']:.4f} |" in report
    assert Image.open(artifact.path / "detections.png").size[0] > 1440


def test_the_arms_begin_alike_but_for_the_backbone(world, finished):
    artifact, _ = finished
    pretrained, scratch = (
        load_file(artifact.path / f"detector_{arm}.safetensors") for arm in ("pretrained", "scratch")
    )
    backbone = load_file(world.inputs["pretrain"].path / "backbone.safetensors")
    name = "stages.2.blocks.0.mlp.fc1.weight"
    moved = (pretrained[f"backbone.{name}"] - backbone[name]).abs().max()
    assert moved < 0.01 < (scratch[f"backbone.{name}"] - backbone[name]).abs().max()
    assert (pretrained["depth_net.weight"] - scratch["depth_net.weight"]).abs().max() < 0.01


def test_without_a_val_split_the_test_splits_predictions_come_out(world, artifact, tmp_path):
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
    artifacts = {name: Artifact(tmp_path, name, name) for name in ("ingest", "depth", "pretrain")}
    arrays, attributes, _ = ingest(data, "v1.0-test", IngestConfig())
    write_index(artifacts["ingest"].path / "index.zarr", arrays, attributes)
    artifacts["depth"], artifacts["pretrain"] = world.inputs["depth"], world.inputs["pretrain"]
    summary = run(
        world.config.model_copy(update={"steps": 1, "from_scratch": False}),
        Inputs(data, "v1.0-test", artifacts),
        artifact,
    )
    assert summary == {"steps": 1, "train_samples": 2}
    written = json.loads((artifact.path / "results_nusc.json").read_text())
    assert set(written["results"]) == unseen
    assert any(written["results"].values())
    assert (written["meta"]["use_camera"], written["meta"]["use_lidar"]) == (True, False)
    assert "v1.0-test has no annotations for its test split" in (artifact.path / "report.md").read_text()
    assert (artifact.path / "detections.png").is_file()


@pytest.mark.parametrize("fatal", [1, 4])  # in the pretrained arm, and in the one from scratch
def test_a_killed_stage_goes_on_to_the_same_result(world, finished, tmp_path, fatal):
    artifact = Artifact(tmp_path, "finetune", "0" * 16)
    artifact.path.mkdir(parents=True)
    assert in_a_process(world, tmp_path, fatal) == -signal.SIGKILL
    assert json.loads((artifact.path / "progress.json").read_text()) == {"done": fatal, "total": 2 * world.config.steps}
    run(world.config, world.inputs, artifact)
    whole, _ = finished
    for name in ("detector_pretrained.safetensors", "detector_scratch.safetensors", "metrics.json", "report.md"):
        assert (artifact.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_a_backbone_is_taken_in_any_layout(world, tmp_path, capsys):
    stored, detector = build_detector(world.config).backbone.state_dict(), build_detector(world.config)
    bevdet = {f"img_backbone.{name}": value for name, value in swin_to_mmdet(stored).items()}
    torch.save({"state_dict": bevdet | {"img_neck.conv.0.weight": torch.ones(1)}}, tmp_path / "bevdet.pth")
    load_backbone(detector, tmp_path / "bevdet.pth")
    assert all(torch.equal(value, stored[name]) for name, value in detector.backbone.state_dict().items())
    assert "ignored: img_neck.conv" in capsys.readouterr().err


def test_a_backbone_of_another_config_is_refused(world, tmp_path):
    detector = build_detector(world.config)
    weights = detector.backbone.state_dict()
    save_file(weights | {"norm2.weight": torch.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors: .* norm2\.weight \(3,\) for \(32,\); set `backbone`"):
        load_backbone(detector, tmp_path / "other.safetensors")
    del weights["norm3.bias"]
    save_file(weights, tmp_path / "backbone.safetensors")
    with pytest.raises(UserError, match=r"no whole backbone: backbone\.norm3\.bias missing"):
        load_backbone(detector, tmp_path / "backbone.safetensors")


def test_weight_decay_spares_vectors(world):
    detector = build_detector(world.config)
    matrices, vectors = parameter_groups(detector, 0.1)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert all(p.dim() <= 1 for p in vectors["params"])
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(detector.parameters()))


def test_scores_begin_at_the_prior(world):
    torch.manual_seed(0)
    detector = build_detector(world.config).eval()
    (maps,) = detector.head(torch.randn(1, world.config.bev_width, 32, 32))
    assert np.allclose(maps["heatmap"].sigmoid().mean().item(), 0.1, atol=0.02)
