"""A step's loss in parts against the loss of all its samples together."""

import pytest
import torch

from batches.detector import Batches
from no_waiting import step_without_waiting
from storage.depth import DepthReader
from tasks.finetune.config import EVALUATE
from tasks.finetune.goals.detection import Detection
from tasks.finetune.network import build_detector
from tasks.finetune.task import DetectorTask
from training.ranks import shares


def learnt(world, config):
    return Detection(config, world.index, world.inputs.dataroot, EVALUATE).learnt


@pytest.mark.parametrize("groups", ["one", "six"])
def test_the_mean_over_parts_is_the_loss_of_the_whole(world, groups):
    """Without batch norm's statistics, which are a micro-batch's own."""
    config = world.configured(class_groups=groups, drop_path=0.0)
    depth = DepthReader(world.inputs["depth"].path / "depth.zarr")
    batches = Batches(config, world.index, world.inputs.dataroot, depth, learnt(world, config))
    torch.manual_seed(0)
    detector = build_detector(config).eval()
    task = DetectorTask(config, detector, batches, world.index.samples("train"))
    parts = [batches.evaluation(samples) for samples in ([0], [1, 2], [3])]
    weights = shares(task.counts, parts)
    apart = [{term.name: term.mean * weight[term.name] for term in task.terms(p)} for p, weight in zip(parts, weights)]
    together = task.terms(batches.evaluation([0, 1, 2, 3]))
    for name, _, mean in together:
        torch.testing.assert_close(torch.stack([means[name] for means in apart]).mean(), mean, rtol=1e-4, atol=1e-6)
    assert {"task0.heatmap", "task0.box", "depth"} <= {term.name for term in together}


def test_velocity_is_learnt_as_the_config_says(world):
    heads = {}
    for loss in ("l1", "squared"):
        head = build_detector(world.configured(velocity_loss=loss, velocity_weight=0.7)).head
        heads[loss] = (head.spec.velocity_squared, head.spec.code_weights[-1])
    assert heads == {"l1": (False, 0.7), "squared": (True, 0.7)}


def test_what_is_drawn_from_bfloat16_is_scored_in_float32(world):
    config = world.configured(precision="bf16", depth_weight=0.0)
    batches = Batches(config, world.index, world.inputs.dataroot, truth_of=learnt(world, config))
    detector = build_detector(config)
    task = DetectorTask(config, detector, batches, world.index.samples("train"))
    terms = task.terms(batches.evaluation([0]))
    assert terms
    assert all(term.mean.dtype == torch.float32 and term.mean.isfinite() for term in terms)


@pytest.mark.parametrize("groups", ["one", "six"])
def test_a_step_waits_for_nothing(world, groups):
    config = world.configured(class_groups=groups)
    depth = DepthReader(world.inputs["depth"].path / "depth.zarr")
    batches = Batches(config, world.index, world.inputs.dataroot, depth, learnt(world, config))
    detector = build_detector(config)
    task = DetectorTask(config, detector, batches, world.index.samples("train"))
    assert step_without_waiting(task, detector, batches.evaluation([0, 1])) == []
