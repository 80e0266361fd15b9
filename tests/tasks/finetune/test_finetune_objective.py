"""A step's loss in parts against the loss of all its samples together."""

import pytest
import torch

from storage.depth import DepthReader
from tasks.batches.detector import Batches
from tasks.finetune.network import build_detector
from tasks.finetune.objective import Objective, Whole


@pytest.mark.parametrize("groups", ["one", "six"])
def test_the_mean_over_parts_is_the_loss_of_the_whole(world, groups):
    """Without batch norm's statistics, which are a micro-batch's own."""
    config = world.configured(class_groups=groups, drop_path=0.0)
    depth = DepthReader(world.inputs["depth"].path / "depth.zarr")
    batches = Batches(config, world.index, world.inputs.dataroot, depth)
    torch.manual_seed(0)
    detector = build_detector(config).eval()
    objective = Objective(config, detector, Whole(detector), torch.device("cpu"))
    (whole,) = objective.parts([batches.evaluation([0, 1, 2, 3])])
    together = objective.terms(whole)
    parts = objective.parts([batches.evaluation([0]), batches.evaluation([1, 2]), batches.evaluation([3])])
    apart = [objective.terms(part) for part in parts]
    for name, term in together.items():
        torch.testing.assert_close(torch.stack([terms[name] for terms in apart]).mean(), term, rtol=1e-4, atol=1e-6)
    assert {"task0.heatmap", "task0.box", "depth"} <= set(together)


def test_velocity_is_learnt_as_the_config_says(world):
    heads = {}
    for loss in ("l1", "squared"):
        head = build_detector(world.configured(velocity_loss=loss, velocity_weight=0.7)).head
        heads[loss] = (head.spec.velocity_squared, head.spec.code_weights[-1])
    assert heads == {"l1": (False, 0.7), "squared": (True, 0.7)}


def test_what_is_drawn_from_bfloat16_is_scored_in_float32(world):
    config = world.configured(precision="bf16", depth_weight=0.0)
    batches = Batches(config, world.index, world.inputs.dataroot)
    detector = build_detector(config)
    objective = Objective(config, detector, Whole(detector), torch.device("cpu"))
    (part,) = objective.parts([batches.evaluation([0])])
    terms = objective.terms(part)
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
