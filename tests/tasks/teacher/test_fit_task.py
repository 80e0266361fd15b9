"""A step's loss of the LiDAR detector: in parts, on two ranks, in bf16."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from batches.voxels import LidarBatches
from storage.artifact import Artifact
from tasks.engine.stage import Inputs
from tasks.teacher import fit
from tasks.teacher.network import WEIGHTS, build_detector
from tasks.teacher.task import LidarTask
from training.ranks import shares

HEADS = {"centerpoint": {"class_groups": "six"}, "transfusion": {"head": "transfusion", "queries": 5}}


@pytest.mark.parametrize("head", HEADS)
def test_the_mean_over_parts_is_the_loss_of_the_whole(world, small_fit, head):
    """Of batches with unequally many boxes; without batch norm's statistics, which are a micro-batch's own."""
    config = small_fit.model_copy(update={**HEADS[head], "flip": False, "rotation": 0.0, "scale": 0.0, "seed": 1})
    world.index.__dict__["box_label"] = np.where(np.arange(12) < 3, -1, world.index.box_label)  # sample 0 has none
    batches = LidarBatches(config, world.index, world.dataroot)
    torch.manual_seed(0)
    task = LidarTask(config, build_detector(config).eval(), batches, world.index.samples("train"))
    parts = [batches.training_at(positions, task.samples) for positions in (range(1), range(1, 3), range(3, 5))]
    weights = shares(task.counts, parts)
    apart = [{term.name: term.mean * weight[term.name] for term in task.terms(p)} for p, weight in zip(parts, weights)]
    together = task.terms(batches.training_at(range(5), task.samples))
    assert len({float(weight["box" if head == "transfusion" else "task0.box"]) for weight in weights}) > 1
    for name, _, mean in together:
        torch.testing.assert_close(torch.stack([means[name] for means in apart]).mean(), mean, rtol=1e-4, atol=1e-6)


def test_autocast_makes_the_same_loss_but_for_rounding(world, small_fit):
    losses = {}
    for precision in ("fp32", "bf16"):
        config = small_fit.model_copy(update={"precision": precision, "head": "transfusion", "queries": 5})
        torch.manual_seed(0)
        detector = build_detector(config).eval()
        task = LidarTask(config, detector, LidarBatches(config, world.index, world.dataroot), np.arange(5))
        losses[precision] = {term.name: term.mean for term in task.terms(task.load(0)[0])}
        sum(losses[precision].values()).backward()
        assert all(parameter.grad.isfinite().all() for parameter in detector.parameters())
    for name, loss in losses["fp32"].items():
        assert losses["bf16"][name].dtype == torch.float32
        assert losses["bf16"][name] != loss
        torch.testing.assert_close(losses["bf16"][name], loss, rtol=0.05, atol=0.01)


@pytest.mark.usefixtures("forked_ranks")
@pytest.mark.timeout(300)
def test_two_ranks_learn_as_one_does(world, small_fit, tmp_path):
    """The same losses and weights to rounding, in two micro-batches of two samples, with pasted objects and a running
    average."""
    ingest = Artifact(tmp_path, "ingest", "0" * 64)
    shutil.copytree(tmp_path / "ingest" / "index.zarr", ingest.path / "index.zarr")
    inputs = Inputs(world.dataroot, "v1.0-mini", {"ingest": ingest})
    fields = {"batch_size": 4, "accumulate": 2, "epochs": 3, "paste": 2, "ema": 0.9, "sampling": "cbgs"}
    losses, weights = {}, {}
    for ranks in (1, 2):
        artifact = Artifact(tmp_path, "fit", str(ranks) * 64)
        artifact.path.mkdir(parents=True)
        fit.run(small_fit.model_copy(update=fields | {"ranks": ranks}), inputs, artifact)
        rows = [json.loads(line) for line in (artifact.path / fit.LOG / "metrics.jsonl").read_text().splitlines()]
        losses[ranks] = [row["loss"] for row in rows]
        weights[ranks] = load_file(artifact.path / WEIGHTS)
    assert len(losses[1]) == 4
    np.testing.assert_allclose(losses[2], losses[1], rtol=1e-4)
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[2][name], value, rtol=1e-2, atol=1e-4)
