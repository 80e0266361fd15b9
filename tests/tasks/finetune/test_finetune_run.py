import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from models.bevdet.layout import bevdet_to_public
from models.layouts import swin_to_mmdet, swin_to_original
from storage.artifact import Artifact
from storage.index import write_index
from tasks.errors import UserError
from tasks.finetune.network import build_detector, load_backbone, load_detector, save_detector
from tasks.finetune.run import arms_of, run
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest
from tasks.pretrain.weights import export
from tasks.stage import Inputs

# All that a detector can have, and a step of several parts whose weights are averaged.
FULL = {
    "view": {"frames": 2, "camera_aware": True, "aspp_width": 4, "stereo": True, "previous_from": 1},
    "sampling": "cbgs",
    "class_groups": "six",
    "nms": "rotated",
    "accumulate": 2,
    "ema": 0.9,
    "layer_decay": 0.8,
    "from_scratch": False,
}


def finetune(world, folder: Path, kind: type[Artifact] = Artifact, inputs: Inputs | None = None, **fields):
    """The artifact of a run with other values of the config, and its summary."""
    artifact = kind(folder, "finetune", "0" * 16)
    artifact.path.mkdir(parents=True, exist_ok=True)
    return artifact, run(world.configured(**fields), inputs or world.inputs, artifact)


def without(world, *names: str) -> Inputs:
    """The world's inputs but for some artifacts."""
    artifacts = {name: artifact for name, artifact in world.inputs.artifacts.items() if name not in names}
    return Inputs(world.inputs.dataroot, world.inputs.version, artifacts)


def losses(artifact: Artifact, arm: str = "pretrained") -> list[list[float]]:
    """Loss, gradient's norm and the terms of each step."""
    lines = map(json.loads, (artifact.path / arm / "log" / "metrics.jsonl").read_text().splitlines())
    return [[line[name] for name in sorted(line) if not name.startswith("seconds")] for line in lines]


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    torch.rand(5)  # whatever the process drew before must not matter
    return finetune(world, tmp_path_factory.mktemp("finished"))


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


def test_the_worst_samples_are_shown_and_listed(finished):
    artifact, _ = finished
    listed = json.loads((artifact.path / "detections.json").read_text())
    counts = [sum(sum(entry[kind].values()) for kind in ("missed", "false")) for entry in listed]
    assert counts == sorted(counts, reverse=True)
    assert len(listed) == 4
    report = (artifact.path / "report.md").read_text()
    for place, entry in enumerate(listed, 1):
        assert entry["picture"] == f"detections_{place}.png"
        assert Image.open(artifact.path / entry["picture"]).size[0] > 1440
        assert f"| {entry['picture']} | {entry['scene']} | {entry['sample']} |" in report


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


def test_without_a_val_split_the_test_splits_predictions_come_out(world, tmp_path):
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
    inputs = Inputs(data, "v1.0-test", artifacts)
    artifact, summary = finetune(world, tmp_path, inputs=inputs, steps=1, from_scratch=False)
    assert summary == {"steps": 1, "train_samples": 2}
    written = json.loads((artifact.path / "results_nusc.json").read_text())
    assert set(written["results"]) == unseen
    assert any(written["results"].values())
    assert (written["meta"]["use_camera"], written["meta"]["use_lidar"]) == (True, False)
    assert "v1.0-test has no annotations for its test split" in (artifact.path / "report.md").read_text()
    assert (artifact.path / "detections_1.png").is_file()


class InterruptedAt2(Artifact):
    def write_progress(self, done: int, total: int) -> None:
        super().write_progress(done, total)
        if done == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("fields", [{}, FULL], ids=["plain", "full"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(world, finished, tmp_path, fields):
    whole, _ = finished if not fields else finetune(world, tmp_path / "whole", **fields)
    with pytest.raises(KeyboardInterrupt):
        finetune(world, tmp_path / "stopped", InterruptedAt2, **fields)
    artifact = Artifact(tmp_path / "stopped", "finetune", "0" * 16)
    arms = arms_of(world.configured(**fields))
    progress = json.loads((artifact.path / "progress.json").read_text())
    assert progress == {"done": 2, "total": len(arms) * world.config.steps}
    finetune(world, tmp_path / "stopped", **fields)
    names = [f"detector_{arm}.safetensors" for arm in arms]
    for name in (*names, "metrics.json", "report.md", "detections.json", "detections_1.png"):
        assert (artifact.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_a_run_killed_in_its_second_arm_keeps_the_first(world, finished, tmp_path):
    class InterruptedAt4(Artifact):
        def write_progress(self, done: int, total: int) -> None:
            if done == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(world, tmp_path, InterruptedAt4)
    artifact = Artifact(tmp_path, "finetune", "0" * 16)
    made = (artifact.path / "detector_pretrained.safetensors").stat().st_mtime_ns
    finetune(world, tmp_path)
    assert (artifact.path / "detector_pretrained.safetensors").stat().st_mtime_ns == made
    name = "detector_scratch.safetensors"
    assert (artifact.path / name).read_bytes() == (finished[0].path / name).read_bytes()


@pytest.mark.timeout(120)
def test_two_ranks_learn_as_one_does(world, tmp_path):
    """The same losses and boxes to rounding. (Pretraining's tests kill ranks and go on.)"""
    fields = FULL | {"batch_size": 4, "steps": 2, "drop_path": 0.0}
    fields |= {"view": {"frames": 2, "previous_from": 1}}  # the camera-aware net draws a dropout
    two, one = (finetune(world, tmp_path / str(ranks), ranks=ranks, **fields)[0] for ranks in (2, 1))
    assert len(losses(one)) == 2
    np.testing.assert_allclose(losses(two), losses(one), rtol=2e-3)
    weights, expected = (load_file(a.path / "detector_pretrained.safetensors") for a in (two, one))
    assert all(torch.allclose(weights[name], expected[name], atol=1e-3) for name in expected)
    results = (json.loads((a.path / "results_nusc.json").read_text())["results"] for a in (two, one))
    assert len({tuple(found) for found in results}) == 1  # the same samples in the same order


def test_an_exported_backbone_comes_back_as_the_artifacts(world, finished, tmp_path):
    """Re-imported from mmdet's names, it gives the same detector, without the pretrain artifact."""
    export(world.inputs["pretrain"].path, tmp_path / "backbone.pth", "mmdet")
    artifact, _ = finetune(
        world, tmp_path, inputs=without(world, "pretrain"), init=str(tmp_path / "backbone.pth"), from_scratch=False
    )
    made, expected = (load_file(a.path / "detector_pretrained.safetensors") for a in (artifact, finished[0]))
    assert all(torch.equal(made[name], expected[name]) for name in expected)


def test_a_users_own_swin_begins_a_detector(world, tmp_path, capsys):
    """The original's layout, which has no norm2, without a position embedding, with a classifier."""
    theirs = swin_to_original(build_detector(world.config).backbone.state_dict())
    del theirs["absolute_pos_embed"]
    torch.save({"model": theirs | {"head.weight": torch.ones(3, 64)}}, tmp_path / "swin.pth")
    fields = {"init": str(tmp_path / "swin.pth"), "from_scratch": False, "depth_weight": 0.0, "backbone_rate": 0.0}
    artifact, summary = finetune(world, tmp_path, inputs=without(world, "pretrain", "depth"), **fields)
    assert summary["pretrained"]["NDS"] >= 0
    told = capsys.readouterr().err
    assert "finetune.init: backbone of swin.pth, swin layout" in told
    assert "left as initialised: backbone.absolute_pos_embed, backbone.norm2 (2)" in told
    assert "ignored: head" in told
    made = load_file(artifact.path / "detector_pretrained.safetensors")
    name = "blocks.0.attn.qkv.weight"
    assert torch.equal(made[f"backbone.stages.1.{name}"], theirs[f"layers.1.{name}"])  # frozen


def test_without_a_backbone_to_begin_with_there_is_one_arm(world, tmp_path):
    assert arms_of(world.configured(init="random")) == ("scratch",)
    assert arms_of(world.configured(checkpoint="detector.pth")) == ("given",)


@pytest.mark.parametrize("layout", ["ours", "public"])
def test_a_checkpoint_is_evaluated_as_it_is(world, finished, tmp_path, layout, capsys):
    trained, summary = finished
    file = trained.path / "detector_pretrained.safetensors"
    if layout == "public":
        state = bevdet_to_public(load_file(file))
        extra = {"img_view_transformer.frustum": torch.ones(3), "aux.weight": torch.ones(1)}
        torch.save({"state_dict": state | extra}, file := tmp_path / "epoch_20_ema.pth")
    inputs = without(world, "pretrain", "depth")
    artifact, evaluated = finetune(world, tmp_path, inputs=inputs, checkpoint=str(file))
    assert evaluated == {"given": summary["pretrained"]}
    name = "results_nusc.json"
    assert json.loads((artifact.path / name).read_text()) == json.loads((trained.path / name).read_text())
    coverage = (artifact.path / "coverage.txt").read_text()
    assert coverage.splitlines()[0] == f"{file.name}, {'geomim' if layout == 'ours' else 'bevdet'} layout"
    assert "filled: backbone (" in coverage
    assert ("ignored: aux" in coverage) == (layout == "public")
    assert coverage.strip() in capsys.readouterr().err
    assert "a checkpoint, evaluated as it is" in (artifact.path / "report.md").read_text()
    assert not list(artifact.path.glob("*.safetensors"))


def test_a_checkpoint_of_another_detector_is_refused(world, tmp_path):
    save_detector(build_detector(world.config), tmp_path / "ours.safetensors", world.config)
    coarser = world.configured(bev_range=40.0, bev_cell=2.5)
    with pytest.raises(UserError, match=r"ours\.safetensors: was trained with finetune\.bev_range = 51\.2, not 40\.0"):
        load_detector(build_detector(coarser), tmp_path / "ours.safetensors", coarser)
    public = {"state_dict": bevdet_to_public(build_detector(world.config).state_dict())}
    torch.save(public, tmp_path / "public.pth")
    wider = world.configured(image_width=16)
    with pytest.raises(UserError, match="is no detector of this config: image_out is 8 in the file, 16 in the config"):
        load_detector(build_detector(wider), tmp_path / "public.pth", wider)
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors: is no detector of this config: no public BEVDet"):
        load_detector(build_detector(world.config), tmp_path / "other.safetensors", world.config)


def test_a_backbone_is_taken_in_any_layout(world, tmp_path):
    stored, detector = build_detector(world.config).backbone.state_dict(), build_detector(world.config)
    bevdet = {f"img_backbone.{name}": value for name, value in swin_to_mmdet(stored).items()}
    torch.save({"state_dict": bevdet | {"img_neck.conv.0.weight": torch.ones(1)}}, tmp_path / "bevdet.pth")
    assert "ignored: img_neck.conv" in load_backbone(detector, tmp_path / "bevdet.pth")
    assert all(torch.equal(value, stored[name]) for name, value in detector.backbone.state_dict().items())


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


def test_a_loss_that_is_not_finite_names_its_samples(world, tmp_path):
    tokens = "|".join(str(token) for token in world.index.token)
    with pytest.raises(UserError, match=rf"step \d+: .*samples ({tokens})"):
        finetune(world, tmp_path, rate=1e30, warmup=0, from_scratch=False)


def test_scores_begin_at_the_prior(world):
    torch.manual_seed(0)
    detector = build_detector(world.config).eval()
    (maps,) = detector.head(torch.randn(1, world.config.bev_width, 32, 32))
    assert np.allclose(maps["heatmap"].sigmoid().mean().item(), 0.1, atol=0.02)
