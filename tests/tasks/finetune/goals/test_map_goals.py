"""Segmentation and occupancy through the whole stage, on the simulated world."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from batches.bev_masks import BevMasks
from batches.detector import Batches
from batches.occupancy import read_occupancy
from common.errors import UserError
from evaluation.occupancy import OccupancyScore
from evaluation.table import gain
from models.names import BEV_LAYERS, OCCUPANCY_CLASSES
from rank_jobs import tally
from storage.artifact import Artifact
from tasks.engine.stage import Inputs
from tasks.finetune.config import EVALUATE, EvaluateConfig, FinetuneConfig
from tasks.finetune.detect import detect
from tasks.finetune.goals import goal_of
from tasks.finetune.goals.goal import SampleResult
from tasks.finetune.network import build_detector, load_detector
from tasks.finetune.run import run
from tasks.finetune.task import DetectorTask
from training.ranks import run_ranks, shares

SEGMENTATION = {"task": "segmentation", "depth_weight": 0.0}
OCCUPANCY = {
    "task": "occupancy", "bev_range": 40.0, "bev_cell": 2.5, "bev_rotation": 0.0, "bev_scale": 0.0,
    "depth_weight": 0.0,
}  # fmt: skip


def batches_of(config, world):
    goal = goal_of(config)(config, world.index, world.inputs.dataroot, EVALUATE)
    return Batches(config, world.index, world.inputs.dataroot, truth_of=goal.truth)


def configured(world, **fields) -> FinetuneConfig:
    return FinetuneConfig.model_validate(world.config.model_dump() | fields)


def finished(world, folder, pictures, **fields):
    """The config, the weights, the folder of their evaluation, and its summary."""
    trained = world.finetune(folder, **fields)
    evaluated = world.evaluate(folder, trained, settings=EvaluateConfig(pictures=pictures), **fields)
    return configured(world, **fields), trained.path / "detector.safetensors", *evaluated


@pytest.fixture(scope="module")
def segmented(world, tmp_path_factory):
    return finished(world, tmp_path_factory.mktemp("segmented"), 2, **SEGMENTATION)


@pytest.fixture(scope="module")
def occupied(world, tmp_path_factory):
    return finished(world, tmp_path_factory.mktemp("occupied"), 1, **OCCUPANCY)


def test_segmentation_is_trained_scored_and_compared(segmented):
    _, weights, folder, summary = segmented
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["samples"] == 4
    assert set(metrics["layers"]) == set(BEV_LAYERS)
    assert summary == {"mIoU": metrics["mIoU"]}
    log = [json.loads(line) for line in (weights.parent / "log" / "metrics.jsonl").read_text().splitlines()]
    assert set(BEV_LAYERS) <= set(log[0])
    assert "# Bird's-eye-view segmentation" in (folder / "report.md").read_text()
    other = metrics | {"mIoU": 0.25}
    assert f"| mIoU | {summary['mIoU']:.4f} | 0.2500 |" in gain({"pretrained": metrics, "scratch": other}, 0)
    listed = json.loads((folder / "segmentations.json").read_text())
    assert len(listed) == 2
    assert listed[0]["mIoU"] <= listed[1]["mIoU"]
    assert Image.open(folder / listed[0]["picture"]).size[0] == 1452


def test_occupancy_is_trained_and_scored(occupied):
    _, _, folder, summary = occupied
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["samples"] == 4
    assert list(metrics["classes"]) == list(OCCUPANCY_CLASSES)
    assert summary == {"mIoU": metrics["mIoU"]}
    assert metrics["classes"]["free"]["voxels"] > 10_000
    lines = (folder / "report.md").read_text().splitlines()
    counts = {line.split(" | ")[0][2:]: line.split(" | ")[-1][:-2] for line in lines if line.startswith("| ")}
    occupied = sum(scores["voxels"] for name, scores in metrics["classes"].items() if name != "free")
    assert int(counts["mean without free"]) == occupied < int(counts["free"])
    assert (folder / "occupancies_1.png").is_file()
    assert "| mean without free |" in (folder / "report.md").read_text()


def test_scores_are_those_of_the_stored_weights(world, occupied):
    config, weights, _, summary = occupied
    detector = build_detector(config)
    load_detector(detector, weights, config)
    score, batches = OccupancyScore(), batches_of(config, world)
    for found in detect(detector, config, batches, world.index.samples("val")):
        labels, seen = read_occupancy(world.index, world.inputs.dataroot, found.sample)
        score.add(found.predicted, labels, seen)
    assert score.result()["mIoU"] == summary["mIoU"]


def test_weights_of_another_task_are_refused(world, occupied):
    config, weights, *_ = occupied
    wanted = config.model_copy(update={"task": "segmentation"})
    with pytest.raises(UserError, match=r"finetune.task = occupancy, not segmentation"):
        load_detector(build_detector(wanted), weights, wanted)


@pytest.mark.parametrize("fields", [SEGMENTATION, OCCUPANCY])
def test_the_mean_over_parts_is_the_loss_of_the_whole(world, fields):
    config = configured(world, **fields, drop_path=0.0)
    batches = batches_of(config, world)
    torch.manual_seed(0)
    detector = build_detector(config).eval()
    task = DetectorTask(config, detector, batches, world.index.samples("train"))
    parts = [batches.evaluation(samples) for samples in ([0], [1, 2], [3])]
    weights = shares(task.counts, parts)
    apart = [{term.name: term.mean * weight[term.name] for term in task.terms(p)} for p, weight in zip(parts, weights)]
    for name, _, mean in task.terms(batches.evaluation([0, 1, 2, 3])):
        torch.testing.assert_close(torch.stack([means[name] for means in apart]).mean(), mean, rtol=1e-4, atol=1e-6)


def test_truth_moves_with_the_scene(world):
    """The masks of an augmented batch are those of the matrix that the cameras get."""
    config = configured(world, **SEGMENTATION, bev_rotation=20.0, bev_scale=0.05, bev_flip=True)
    batches = batches_of(config, world)
    batch = batches.training_at(range(2), world.index.samples("train"))
    masks = BevMasks(world.index, world.inputs.dataroot, config.bev_range, config.bev_cell)
    for place, sample in enumerate(batch.samples.tolist()):
        expected = masks.read(sample, batch.cameras.scene[place].double().numpy())
        assert (batch.truth[0][place].numpy() == expected).mean() > 0.999  # float32 matrices
        assert (batch.truth[0][place].numpy() == masks.read(sample)).mean() < 0.98


def test_voxels_are_mirrored_with_the_scene(world):
    config = configured(world, **OCCUPANCY, bev_flip=True)
    batches = batches_of(config, world)
    seen = set()
    for step in range(8):
        batch = batches.training_at(range(step, step + 1), world.index.samples("train"))
        x, y = (int(batch.cameras.scene[0, axis, axis]) for axis in (0, 1))
        labels, _ = read_occupancy(world.index, world.inputs.dataroot, int(batch.samples[0]))
        np.testing.assert_array_equal(batch.truth[0][0].numpy(), labels[::x, ::y])
        seen.add((x, y))
    assert len(seen) > 2


def test_a_missing_folder_of_labels_is_one_sentence(world, tmp_path):
    config = configured(world, **OCCUPANCY)
    (tmp_path / "samples").symlink_to(world.inputs.dataroot / "samples")
    artifact = Artifact(tmp_path, "finetune", "0" * 16)
    artifact.path.mkdir(parents=True)
    with pytest.raises(UserError, match=r"gts/scene-.*labels.npz: is missing; unpack Occ3D-nuScenes"):
        run(config, Inputs(tmp_path, world.inputs.version, world.inputs.artifacts), artifact)


@pytest.mark.usefixtures("forked_ranks")
def test_the_worst_are_kept_and_all_are_counted():
    """On one rank and on two."""
    rng = np.random.default_rng(0)
    found = []
    for sample in range(6):
        labels = rng.integers(0, 18, (4, 4, 4)).astype(np.uint8)
        wrong = rng.random((4, 4, 4)) < (0.9, 0.1, 0.5, 0.95, 0.3, 0.7)[sample]
        found.append(SampleResult(sample, np.where(wrong, 17 - labels, labels), (labels, np.ones((4, 4, 4), bool))))
    whole = OccupancyScore()
    for _, predicted, truth in found:
        whole.add(predicted, *truth)
    one = tally(found, 2)
    assert one[0] == whole.result()
    assert set(one[1]) == {0, 3}
    assert run_ranks(2, torch.device("cpu"), tally, found, 2) == one
