"""Pretraining in the image plane on a simulated scene, through the real loop."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from batches.frames import boxes_in_key_ego
from batches.lidar import sample_boxes
from clip_world import clip_world, opened  # noqa: F401
from common.errors import UserError
from models.boxes import Boxes
from models.perspective import FINER
from storage.artifact import Artifact
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.perspective import PerspectivePretraining
from tasks.pretrain.run import run

CONFIG = {
    "backbone": {"embed_dim": 8, "depths": (0, 1, 1, 1), "num_heads": (1, 2, 2, 4), "window_sizes": (8, 4, 4, 2)},
    "image": {"size": (64, 160)},
    "method": {"name": "perspective", "width": 8},
    "steps": 5,
    "batch_size": 2,
    "warmup": 1,
    "evaluate_every": 3,
    "threads": 1,
    "device": "cpu",
    "seconds_between_saves": 1e-9,
}


class InterruptedAt3(Artifact):
    def write_progress(self, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt


def pretrain(world, folder, kind=Artifact, **fields):
    """(summary, folder)."""
    artifact = kind(folder, "pretrain", "0" * 64)
    artifact.path.mkdir(parents=True, exist_ok=True)
    return run(PretrainConfig(**CONFIG | fields), world, artifact), artifact.path


def test_it_learns_and_an_interrupted_run_ends_as_an_uninterrupted_one(clip_world, tmp_path):  # noqa: F811
    fields = {"steps": 30, "rate": 5e-3, "evaluate_every": 15}
    summary, whole = pretrain(clip_world, tmp_path / "whole", **fields)
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    losses = [line["centers"] for line in lines if "loss" in line]
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:3])
    assert {"held_out_centers", "held_out_blind", "held_out_rank"} <= summary.keys()
    with pytest.raises(KeyboardInterrupt):
        pretrain(clip_world, tmp_path / "cut", InterruptedAt3, **fields)
    _, cut = pretrain(clip_world, tmp_path / "cut", **fields)
    weights, resumed = load_file(whole / "model.safetensors"), load_file(cut / "model.safetensors")
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    assert (whole / "pretrain.png").stat().st_size > 1000


def test_a_boxs_bump_is_where_the_box_is_seen(clip_world):  # noqa: F811
    """Its corners, through the index's own calibrations, stand around it."""
    index = opened(clip_world["ingest"].path)
    config = PretrainConfig(**CONFIG | {"image": {"size": (64, 160), "flip": False, "resize": (0, 0), "rot": (0, 0)}})
    method = PerspectivePretraining(config, config.method, clip_world, index)
    heatmaps = method.images.held_out([0]).heatmaps[0].numpy()
    stride, (width, _) = config.backbone.strides[2] // FINER, index.image_size[0, 0]
    scale, found = 160 / width, 0
    boxes: Boxes = boxes_in_key_ego(index, 0, sample_boxes(index, 0, 1))
    for camera in range(6):
        to_ego = np.linalg.inv(index.lidar_ego_to_global[0]) @ index.camera_ego_to_global[0, camera]
        to_ego = to_ego @ index.camera_to_ego[0, camera]
        top = int(index.image_size[0, camera][1] * scale) - 64  # rows that the crop takes from above
        for label, row, column in np.argwhere(heatmaps[camera] == 1):
            centers = []
            for center in boxes.centers[boxes.labels == label]:
                x, y, z = (np.linalg.inv(to_ego) @ [*center, 1])[:3]
                u, v = (index.intrinsics[0, camera] @ [x / z, y / z, 1])[:2] * scale
                centers.append((z > 1) & (int((v - top) // stride) == row) & (int(u // stride) == column))
            assert any(centers)
            found += 1
    assert found > 3


def test_mirrored_images_have_mirrored_targets(clip_world):  # noqa: F811
    index = opened(clip_world["ingest"].path)
    image = {"size": (64, 160), "flip": True, "resize": (0, 0), "rot": (0, 0)}
    config = PretrainConfig(**CONFIG | {"image": image})
    images = PerspectivePretraining(config, config.method, clip_world, index).images
    plain, mirrored = images.held_out([0]), 0
    for position in range(8):
        drawn = images.training_at(range(position, position + 1), np.array([0]))
        for camera in range(6):
            wanted = plain.heatmaps[0, camera]
            if not torch.equal(drawn.images[0, camera], plain.images[0, camera]):
                assert torch.equal(drawn.images[0, camera], plain.images[0, camera].flip(1))
                wanted, mirrored = wanted.flip(-1), mirrored + 1
            # A centre on a cell's border falls into the cell beside it.
            assert (drawn.heatmaps[0, camera] - wanted).abs().amax() < 1
    assert mirrored > 5


def test_boxes_that_no_point_met_are_nothing_to_learn_from(clip_world):  # noqa: F811
    config = PretrainConfig(**CONFIG | {"method": {"name": "perspective", "min_lidar_points": 10**6}})
    index = opened(clip_world["ingest"].path)
    with pytest.raises(UserError, match=r"lower pretrain\.method\.min_lidar_points"):
        PerspectivePretraining(config, config.method, clip_world, index)
