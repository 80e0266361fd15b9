import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file, save_file

from common.errors import UserError
from damages import cut, damaged_in_turn
from models.bevdet.layout import bevdet_to_public
from models.layouts import swin_to_mmdet, swin_to_original
from products import fast_products
from storage.artifact import Artifact
from storage.index import write_index
from tasks.engine.stage import Inputs
from tasks.finetune.network import build_detector, load_backbone, load_detector, save_detector
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest
from tasks.pretrain.weights import export
from what_kernels_get import Geometry

# All that a detector can have, and a step of several parts whose weights are averaged.
FULL = {
    "view": {"frames": 2, "camera_aware": True, "aspp_width": 4, "stereo": True, "previous_from": 1},
    "sampling": "cbgs",
    "class_groups": "six",
    "accumulate": 2,
    "ema": 0.9,
    "layer_decay": 0.8,
}
WEIGHTS = "detector.safetensors"


def losses(artifact: Artifact) -> list[list[float]]:
    """Loss, gradient's norm and the terms of each step."""
    lines = map(json.loads, (artifact.path / "log" / "metrics.jsonl").read_text().splitlines())
    return [[line[name] for name in sorted(line) if not name.startswith("seconds")] for line in lines]


@pytest.mark.parametrize("view", [{}, {"frames": 2, "camera_aware": True, "aspp_width": 4, "stereo": True}], ids=str)
def test_cameras_are_the_same_in_every_precision(world, tmp_path, view):
    """The cells of splats, the places of stereo and the numbers that describe cameras, in training and evaluation."""
    seen = []
    for precision in ("fp32", "bf16"):
        fields = {"precision": precision, "view": view, "steps": 1}
        with fast_products(), Geometry() as geometry:
            trained = world.finetune(tmp_path / precision, **fields)
            world.evaluate(tmp_path / precision, trained, **fields)
        seen.append(geometry)
    assert len(seen[0].points) >= 2 * 2 * view.get("frames", 1)  # a step and an evaluation; points and bags
    assert bool(seen[0].places) == bool(seen[0].numbers) == view.get("stereo", False)
    assert seen[0].same_as(seen[1])


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    torch.rand(5)  # whatever the process drew before must not matter
    return world.finetune(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def scratch(world, tmp_path_factory):
    return world.finetune(tmp_path_factory.mktemp("scratch"), inputs=world.without("pretrain"), init="random")


def test_an_arm_is_trained_and_logged(world, finished, scratch):
    for artifact in (finished, scratch):
        assert artifact.summary == {"steps": world.config.steps, "train_samples": 2}
        log = [json.loads(line) for line in (artifact.path / "log" / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in log] == list(range(world.config.steps))
        assert {"task0.heatmap", "task0.box", "depth"} <= set(log[0])
        assert not list(artifact.path.rglob("*.pt"))
        assert list((artifact.path / "log").glob("events*"))


def test_the_arms_begin_alike_but_for_the_backbone(world, finished, scratch):
    pretrained, other = (load_file(artifact.path / WEIGHTS) for artifact in (finished, scratch))
    backbone = load_file(world.inputs["pretrain"].path / "backbone.safetensors")
    name = "stages.2.blocks.0.mlp.fc1.weight"
    moved = (pretrained[f"backbone.{name}"] - backbone[name]).abs().max()
    assert moved < 0.01 < (other[f"backbone.{name}"] - backbone[name]).abs().max()
    assert (pretrained["depth_net.weight"] - other["depth_net.weight"]).abs().max() < 0.01


class InterruptedAt2(Artifact):
    def write_progress(self, done: int, total: int) -> None:
        super().write_progress(done, total)
        if done == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("fields", [{}, FULL], ids=["plain", "full"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(world, finished, tmp_path, fields):
    whole = finished if not fields else world.finetune(tmp_path / "whole", **fields)
    with pytest.raises(KeyboardInterrupt):
        world.finetune(tmp_path / "stopped", InterruptedAt2, **fields)
    (progress,) = (tmp_path / "stopped").rglob("progress.json")
    assert json.loads(progress.read_text()) == {"done": 2, "total": world.config.steps}
    artifact = world.finetune(tmp_path / "stopped", **fields)
    assert (artifact.path / WEIGHTS).read_bytes() == (whole.path / WEIGHTS).read_bytes()


@pytest.mark.usefixtures("forked_ranks")
@pytest.mark.timeout(300)
def test_two_ranks_learn_as_one_does(world, tmp_path):
    """The same losses and boxes to rounding. (Pretraining's tests kill ranks and go on.)"""
    fields = FULL | {"batch_size": 4, "steps": 2, "drop_path": 0.0}
    fields |= {"view": {"frames": 2, "previous_from": 1}}  # the camera-aware net draws a dropout
    two, one = (world.finetune(tmp_path / str(ranks), ranks=ranks, **fields) for ranks in (2, 1))
    assert len(losses(one)) == 2
    np.testing.assert_allclose(losses(two), losses(one), rtol=2e-3)
    weights, expected = (load_file(a.path / WEIGHTS) for a in (two, one))
    assert all(torch.allclose(weights[name], expected[name], atol=1e-3) for name in expected)
    folders = [world.evaluate(tmp_path / f"e{r}", a, ranks=r, **fields)[0] for r, a in ((2, two), (1, one))]
    results = (json.loads((folder / "results_nusc.json").read_text())["results"] for folder in folders)
    assert len({tuple(found) for found in results}) == 1  # the same samples in the same order


def test_an_exported_backbone_comes_back_as_the_artifacts(world, finished, tmp_path):
    """Re-imported from mmdet's names, it gives the same detector, without the pretrain artifact."""
    export(world.inputs["pretrain"].path, tmp_path / "backbone.pth", "mmdet")
    artifact = world.finetune(tmp_path, inputs=world.without("pretrain"), init=str(tmp_path / "backbone.pth"))
    made, expected = (load_file(a.path / WEIGHTS) for a in (artifact, finished))
    assert all(torch.equal(made[name], expected[name]) for name in expected)


def test_a_users_own_swin_begins_a_detector(world, tmp_path, capsys):
    """The original's layout, which has no norm2, without a position embedding, with a classifier."""
    theirs = swin_to_original(build_detector(world.config).backbone.state_dict())
    del theirs["absolute_pos_embed"]
    torch.save({"model": theirs | {"head.weight": torch.ones(3, 64)}}, tmp_path / "swin.pth")
    fields = {"init": str(tmp_path / "swin.pth"), "depth_weight": 0.0, "backbone_rate": 0.0}
    artifact = world.finetune(tmp_path, inputs=world.without("pretrain", "depth"), **fields)
    told = capsys.readouterr().err
    assert "finetune.init: backbone of swin.pth, swin layout" in told
    assert "left as initialised: backbone.absolute_pos_embed, backbone.norm2 (2)" in told
    assert "ignored: head" in told
    made = load_file(artifact.path / WEIGHTS)
    name = "blocks.0.attn.qkv.weight"
    assert torch.equal(made[f"backbone.stages.1.{name}"], theirs[f"layers.1.{name}"])  # frozen
    _, summary = world.evaluate(tmp_path, artifact, inputs=world.without("pretrain", "depth"), **fields)
    assert summary["NDS"] >= 0


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


def test_a_training_that_diverges_is_called_so(world, tmp_path):
    with pytest.raises(UserError, match=r"finetune: steps? .*: training has diverged; lower finetune\.rate"):
        world.finetune(tmp_path, rate=1e30, warmup=0)


def test_a_poisoned_sample_is_skipped_or_left_out(world, tmp_path):
    """A velocity of 3e38 m/s: its steps are skipped, and told; without the sample, nothing is amiss."""
    poisoned = Artifact(tmp_path, "ingest", "poisoned")
    shutil.copytree(world.inputs["ingest"].path, poisoned.path)
    rows = world.index.box_rows(sample := int(world.index.samples("train")[0]))
    zarr.open_group(poisoned.path / "index.zarr", mode="r+")["box_velocity"][rows] = 3e38
    inputs = Inputs(world.inputs.dataroot, world.inputs.version, world.inputs.artifacts | {"ingest": poisoned})
    fields = {"batch_size": 1, "steps": 4, "depth_weight": 0.0}

    artifact = world.finetune(tmp_path / "skipped", inputs=inputs, **fields)
    log = map(json.loads, (artifact.path / "log" / "metrics.jsonl").read_text().splitlines())
    skipped = [row for row in log if "skipped" in row]
    token = str(world.index.token[sample])
    assert [row["samples"] for row in skipped] == [[token]] * 2
    assert artifact.summary["skipped_steps"] == 2

    artifact = world.finetune(tmp_path / "left out", inputs=inputs, skip_samples=[token], **fields)
    assert artifact.summary["skip_samples"] == [token]
    assert artifact.summary["train_samples"] == 1
    assert "skipped_steps" not in artifact.summary


def test_every_damaged_file_of_an_interrupted_run_is_made_again(world, finished, tmp_path):
    """Interrupted when training was over: weights that are there say nothing of what they hold.

    (Other damages: in the tests of `fit` and `pretrain`; each of a checkpoint: training/test_checkpoint.py.)
    """

    class Killed(Artifact):
        def finish(self, *arguments):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.finetune(tmp_path, kind=Killed)
    seen = []
    for name in damaged_in_turn(tmp_path / "finetune" / finished.key[:16], cut):
        seen.append(name)
        artifact = world.finetune(tmp_path)
        assert (artifact.path / WEIGHTS).read_bytes() == (finished.path / WEIGHTS).read_bytes(), name
    assert {WEIGHTS, ".checkpoint.pt", ".checkpoint.pt.before", "log/metrics.jsonl"} < set(seen)


def test_scores_begin_at_the_prior(world):
    torch.manual_seed(0)
    detector = build_detector(world.config).eval()
    (maps,) = detector.head(torch.randn(1, world.config.bev_width, 32, 32))
    assert np.allclose(maps["heatmap"].sigmoid().mean().item(), 0.1, atol=0.02)


def test_where_the_weights_are(world, finished):
    assert sorted(Path(name).name for name in finished.manifest().files if not name.startswith("log/")) == [
        WEIGHTS, "recipe.json"
    ]  # fmt: skip


def test_a_train_split_without_a_box_of_any_class_stops_before_training(world, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(world.inputs.dataroot, data)
    table = data / "v1.0-mini" / "category.json"
    rows = json.loads(table.read_text())
    table.write_text(json.dumps([row | {"name": f"own.{n}"} for n, row in enumerate(rows)]))
    (made := Artifact(tmp_path, "ingest", "ingest")).path.mkdir(parents=True)
    arrays, attributes, _ = ingest(data, "v1.0-mini", IngestConfig())
    write_index(made.path / "index.zarr", arrays, attributes)
    inputs = Inputs(data, "v1.0-mini", world.inputs.artifacts | {"ingest": made})
    with pytest.raises(UserError, match=r"finetune: none of the \d+ boxes to train on is of a detection class \(own\."):
        world.finetune(tmp_path, inputs=inputs)
    assert not list(tmp_path.rglob("*.safetensors"))
