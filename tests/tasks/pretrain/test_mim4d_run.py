"""MIM4D, UniPAD and GeoMIM + MIM4D on a simulated scene, through the real loop."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from batches.clips import joined
from clip_world import MIM4D, clip_world, opened  # noqa: F401
from no_waiting import step_without_waiting
from storage.artifact import Artifact
from tasks.engine.stage import Inputs
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.mim4d.method import MIM4DPretraining
from tasks.pretrain.run import run
from tasks.pretrain.task import PretrainTask

GEOMIM = {
    "name": "geomim",
    "decoder": {"width": 16, "num_heads": 2, "depth": 4},
    "depth_bins": (1.0, 33.0, 4.0),
    "depth_sweeps": 0,
    "context": 8,
    "patch": 4,
    "bev_flip": False,
    "probe_samples": 2,
}
JOINT_MIM4D = {name: value for name, value in MIM4D.items() if name not in ("depth_bins", "width", "context")}
METHODS = {
    "mim4d": MIM4D,
    "unipad": MIM4D | {"frames": 1},
    "joint": {"name": "joint", "geomim": GEOMIM, "mim4d": JOINT_MIM4D, "mim4d_weight": 0.5},
}
CONFIG = {
    "backbone": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4), "window_sizes": (8, 4, 4, 2)},
    "image": {"size": (64, 160)},
    "steps": 4,
    "batch_size": 2,
    "warmup": 1,
    "evaluate_every": 3,
    "threads": 1,
    "device": "cpu",
    "seconds_between_saves": 1e-9,
}


class InterruptedAt2(Artifact):
    def write_progress(self, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt


def pretrain(world: Inputs, folder: Path, method: str, kind: type[Artifact] = Artifact, **fields):
    """(summary, weights)."""
    artifact = kind(folder, "pretrain", "0" * 64)
    artifact.path.mkdir(parents=True, exist_ok=True)
    summary = run(PretrainConfig(**CONFIG | {"method": METHODS[method]} | fields), world, artifact)
    return summary, load_file(artifact.path / "model.safetensors")


@pytest.mark.parametrize("method", ["mim4d", "joint"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(clip_world, tmp_path, method):  # noqa: F811
    summary, weights = pretrain(clip_world, tmp_path / "whole", method)
    folder = tmp_path / "whole/pretrain" / ("0" * 16)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if "loss" in line]
    assert {"direct_rgb", "direct_depth"} <= trained[0].keys()
    assert "rebuilt_depth" in trained[0]
    assert ("reconstruction" in trained[0]) == (method == "joint")
    prefix = "held_out_rendered_" if method == "joint" else "held_out_"
    assert {prefix + name for name in ("depth", "depth_blind", "depth_constant", "psnr")} <= summary.keys()
    assert {"held_out_rank", "held_out_probe_ap"} <= summary.keys()
    assert (folder / "pretrain.png").stat().st_size > 10_000
    assert (folder / "rendered.png").is_file() == (method == "joint")
    assert load_file(folder / "backbone.safetensors").keys() == {
        name.removeprefix("backbone.") for name in weights if name.startswith("backbone.")
    }

    with pytest.raises(KeyboardInterrupt):
        pretrain(clip_world, tmp_path / "stopped", method, kind=InterruptedAt2)
    again, resumed = pretrain(clip_world, tmp_path / "stopped", method)
    assert again == summary
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


def test_a_convnext_is_pretrained_alike_by_unipad(clip_world, tmp_path):  # noqa: F811
    summary, weights = pretrain(
        clip_world, tmp_path, "unipad", backbone={"name": "convnext", "size": "tiny"}, steps=1, image={"size": (32, 64)}
    )
    assert "backbone.stem.0.weight" in weights
    assert not any(name.startswith("video.temporal.") for name in weights)  # of one frame, nothing is rebuilt
    assert not any("rebuilt" in name for name in summary)
    assert summary["held_out_depth"] > 0


def test_parts_weighted_by_their_counts_are_the_whole(clip_world):  # noqa: F811
    """One sample has no earlier frames: a step's parts have unequally many rays, and nothing rebuilt in one."""
    config = PretrainConfig(**CONFIG | {"method": MIM4D})
    method = MIM4DPretraining(config, config.method, clip_world, opened(clip_world["ingest"].path))
    torch.manual_seed(0)
    model = method.build().eval()
    samples = [method.clips.held_out([sample]) for sample in range(3)]
    batches = [joined(samples), *samples]
    losses, counts = [], []
    for batch in batches:
        losses.append({term.name: term.mean for term in method.terms(model, model, batch)})
        counts.append(method.counts(model, batch))
    assert counts[1]["rebuilt_rgb"] == 0
    for name, whole in losses[0].items():
        assert sum(count[name] for count in counts[1:]) == counts[0][name]
        weighted = sum(loss[name] * count[name] for loss, count in zip(losses[1:], counts[1:])) / counts[0][name]
        torch.testing.assert_close(weighted, whole, rtol=1e-4, atol=1e-6)


def test_bf16_loses_little(clip_world):  # noqa: F811
    """The field is float32 in either; what is lifted is not."""
    losses = []
    for precision in ("fp32", "bf16"):
        config = PretrainConfig(**CONFIG | {"method": MIM4D, "precision": precision})
        method = MIM4DPretraining(config, config.method, clip_world, opened(clip_world["ingest"].path))
        torch.manual_seed(0)
        model = method.build()
        losses.append(
            {term.name: float(term.mean.detach()) for term in method.terms(model, model, method.clips.held_out([1]))}
        )
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[1] != losses[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_step_waits_for_nothing(clip_world, method):  # noqa: F811
    config = PretrainConfig(**CONFIG | {"method": METHODS[method]})
    index = opened(clip_world["ingest"].path)
    made = config.method.method()(config, config.method, clip_world, index)
    model = made.build()
    samples = index.samples("train")
    task = PretrainTask(config, made, model, samples, None)
    assert step_without_waiting(task, model, made.batch(range(2), samples)) == []
