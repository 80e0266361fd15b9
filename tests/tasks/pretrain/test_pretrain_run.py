"""Pretraining on a handful of made-up samples, through the real stores and the real loop."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from models.names import CAMERAS, CLASSES
from storage.artifact import Artifact
from storage.bev import FLIPS, BevAttributes, BevReader, BevWriter
from storage.depth import DepthReader, DepthWriter, SamplePoints
from storage.index import FIXED, SCHEMA, Index, IndexAttributes, write_index
from tasks.backbone import build_backbone
from tasks.batches.pretrain import PretrainBatches, camera_to_key_lidar
from tasks.errors import UserError
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.held_out import split_samples
from tasks.pretrain.run import run
from tasks.stage import Inputs
from tasks.training.order import batch_at

SAMPLES, WIDTH, HEIGHT = 5, 128, 72
CONFIG = {
    "backbone": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4), "window_sizes": (8, 4, 4, 2)},
    "image": {"size": (64, 96)},
    "decoder": {"width": 16, "num_heads": 2, "depth": 4},
    "depth_bins": (1.0, 11.0, 1.0),
    "depth_sweeps": 0,
    "context": 4,
    "patch": 4,
    "steps": 6,
    "batch_size": 2,
    "warmup": 1,
    "evaluate_every": 4,
    "threads": 1,
    "device": "cpu",
    "seconds_between_saves": 1e-9,
}


def made_up_index(path: Path, generator: np.random.Generator) -> None:
    sizes = FIXED | {"sample": SAMPLES, "sample_edge": SAMPLES + 1, "camera": 6}
    sizes |= {"scene": 1, "sweep": 1, "frame": 1, "box": 0}
    arrays = {
        name: np.full([sizes[d] for d in dimensions], "", object)
        if dtype == "str"
        else np.zeros([sizes[d] for d in dimensions], dtype)
        for name, (dtype, dimensions) in SCHEMA.items()
    }
    arrays["token"][:] = [f"sample-{s}" for s in range(SAMPLES)]
    arrays["split"][:] = ["train"] * (SAMPLES - 1) + ["val"]
    arrays["camera_path"][:] = [[f"samples/{c}/{s}.jpg" for c in CAMERAS] for s in range(SAMPLES)]
    arrays["image_size"][:] = WIDTH, HEIGHT
    arrays["intrinsics"][:] = [[80, 0, WIDTH / 2], [0, 80, HEIGHT / 2], [0, 0, 1]]
    for name in ("lidar_to_ego", "lidar_ego_to_global", "camera_to_ego", "camera_ego_to_global"):
        rotation = np.linalg.qr(generator.normal(size=(*arrays[name].shape[:-2], 3, 3)))[0]
        arrays[name][..., :3, :3] = rotation * np.sign(np.linalg.det(rotation))[..., None, None]
        arrays[name][..., :3, 3] = generator.normal(size=(*arrays[name].shape[:-2], 3))
        arrays[name][..., 3, 3] = 1
    write_index(path, arrays, IndexAttributes("v1.0-mini", CAMERAS, CLASSES))


def some_maps(generator: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3, 16, 16), a third of the cells active, in a share of each patch that is the same for all."""
    return generator.normal(size=(count, 3, 16, 16)) * (generator.random((count, 1, 16, 16)) < 1 / 3)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Inputs:
    """Inputs of the stage: images of noise, a random teacher, random depths."""
    root = tmp_path_factory.mktemp("world")
    generator = np.random.default_rng(0)
    artifacts = {stage: Artifact(root, stage, f"{stage:0<64}") for stage in ("ingest", "teacher", "depth")}
    for artifact in artifacts.values():
        artifact.path.mkdir(parents=True)
    made_up_index(artifacts["ingest"].path / "index.zarr", generator)
    index = Index.open(artifacts["ingest"].path / "index.zarr")
    for path in index.camera_path.flat:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(root / path)
    attributes = BevAttributes((-8.0, -8.0, -5.0, 8.0, 8.0, 3.0), (1.0, 1.0), SAMPLES)
    bev = BevWriter(artifacts["teacher"].path / "bev.zarr", index.token, (3, 16, 16), attributes)
    bev.write(0, some_maps(generator, SAMPLES))
    depth = DepthWriter(artifacts["depth"].path / "depth.zarr", SAMPLES, CAMERAS, 0, SAMPLES)
    offsets = np.arange(7) * 50
    points = [
        SamplePoints(
            generator.uniform(0, WIDTH, 300).astype(np.float32),
            generator.uniform(0, HEIGHT, 300).astype(np.float32),
            generator.uniform(1, 12, 300).astype(np.float32),
            np.zeros(300, np.uint8),
            offsets,
        )
        for _ in range(SAMPLES)
    ]
    depth.write(0, points)
    return Inputs(root, "v1.0-mini", artifacts)


def pretrain(world: Inputs, folder: Path, **fields) -> tuple[dict, dict[str, torch.Tensor]]:
    artifact = Artifact(folder, "pretrain", "0" * 64)
    artifact.path.mkdir(parents=True, exist_ok=True)
    summary = run(PretrainConfig(**CONFIG | fields), world, artifact)
    return summary, load_file(artifact.path / "model.safetensors")


def test_an_interrupted_run_ends_as_an_uninterrupted_one(world, tmp_path):
    summary, weights = pretrain(world, tmp_path / "whole")
    folder = tmp_path / "whole/pretrain" / ("0" * 16)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(6))
    assert [line["step"] for line in lines if "held_out_depth" in line] == [3, 5]
    assert summary["held_out_reconstruction"] == lines[-1]["held_out_reconstruction"]
    assert summary["held_out_zero"] == pytest.approx(1, abs=0.05)
    assert (folder / "pretrain.png").stat().st_size > 10_000
    assert not (folder / "checkpoint.pt").exists()

    # An image that is gone stops the run at the first step that needs it: the second, for this seed.
    missing = int(batch_at(1, np.arange(SAMPLES - 1), CONFIG["batch_size"], seed=0)[0])
    path = world.dataroot / f"samples/CAM_BACK/{missing}.jpg"
    hidden = path.with_suffix(".away")
    path.rename(hidden)
    with pytest.raises(UserError, match=rf"CAM_BACK/{missing}.jpg: cannot be read"):
        pretrain(world, tmp_path / "stopped")
    assert (tmp_path / "stopped/pretrain" / ("0" * 16) / ".checkpoint.pt").is_file()
    hidden.rename(path)
    again, resumed = pretrain(world, tmp_path / "stopped")
    assert again == summary
    assert weights.keys() == resumed.keys()
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


def test_the_backbone_is_what_finetuning_builds(world, tmp_path):
    pretrain(world, tmp_path, steps=1)
    weights = load_file(tmp_path / "pretrain" / ("0" * 16) / "backbone.safetensors")
    build_backbone(PretrainConfig(**CONFIG).backbone).load_state_dict(weights)


def test_a_loss_that_is_not_finite_names_its_samples(world, tmp_path):
    with pytest.raises(UserError, match=r"step \d+: .*sample-\d, sample-\d"):
        pretrain(world, tmp_path, rate=1e30, warmup=0)


def test_more_sweeps_than_the_depth_cache_holds(world, tmp_path):
    with pytest.raises(UserError, match=r"depth_sweeps is 3, but depth\.sweeps keeps only 0"):
        pretrain(world, tmp_path, depth_sweeps=3)


@pytest.fixture
def batches(world) -> PretrainBatches:
    index = Index.open(world["ingest"].path / "index.zarr")
    bev, depth = BevReader(world["teacher"].path / "bev.zarr"), DepthReader(world["depth"].path / "depth.zarr")
    return PretrainBatches(PretrainConfig(**CONFIG), world.dataroot, index, bev, depth)


def test_a_batch_follows_its_generator(batches):
    first, again, other = (batches.training(np.array([0, 2]), np.random.default_rng(s)) for s in (1, 1, 2))
    assert first.tokens == ["sample-0", "sample-2"]
    for a, b, c in zip(*((*x.cameras, x.images, x.groups, x.depth_map, x.lidar_bev()) for x in (first, again, other))):
        assert torch.equal(a, b)
        assert a.shape == c.shape
    assert not torch.equal(first.images, other.images)
    assert first.images.shape == (2, 6, 64, 96, 3)
    assert first.groups.shape == (1, 2, 3)
    assert first.depth_map.shape == (2, 6, 64, 96)
    assert first.lidar_bev().shape == (2, 3, 16, 16)


def test_a_batch_holds_the_teachers_maps(batches):
    samples = np.array([3, 1])
    made = batches.held_out(samples).to(torch.device("cpu"))
    assert torch.equal(made.lidar_bev(), torch.stack([torch.from_numpy(batches.bev[s]) for s in (3, 1)]))
    assert len(made.bev_index) == int((made.lidar_bev() != 0).any(1).sum())  # the active cells travel, no others


def test_a_mirrored_scene_is_mirrored_everywhere(batches):
    """What stands at a cell of the target is where the camera's transform puts it, whatever was mirrored."""
    plain = batches.held_out(np.array([1]))
    seen = set()
    for seed in range(12):
        flipped = batches.training(np.array([1]), np.random.default_rng(seed))
        mirror = flipped.cameras.camera_to_lidar[0] @ torch.inverse(plain.cameras.camera_to_lidar[0])
        signs = mirror[0].diagonal().round().tolist()
        torch.testing.assert_close(mirror, torch.diag(torch.tensor(signs)).expand(6, 4, 4), atol=1e-4, rtol=0)
        dims = [axis for axis, sign in ((2, signs[0]), (3, signs[1])) if sign < 0]
        assert torch.equal(flipped.lidar_bev(), plain.lidar_bev().flip(dims))
        seen.add(tuple(dims))
    assert seen == {(), (2,), (3,), (2, 3)}


def test_a_mirrored_scene_has_its_own_map_where_the_store_keeps_one(batches, tmp_path):
    attributes = replace(batches.bev.attributes, flips=FLIPS)
    writer = BevWriter(tmp_path / "bev.zarr", batches.index.token, (3, 16, 16), attributes)
    writer.write(0, some_maps(np.random.default_rng(1), 4 * SAMPLES))
    reader = batches.bev = BevReader(tmp_path / "bev.zarr")
    plain = batches.held_out(np.array([1]))
    assert torch.equal(plain.lidar_bev()[0], torch.from_numpy(reader.dense(1)))
    seen = set()
    for seed in range(12):
        flipped = batches.training(np.array([1]), np.random.default_rng(seed))
        mirror = flipped.cameras.camera_to_lidar[0, 0] @ torch.inverse(plain.cameras.camera_to_lidar[0, 0])
        flip = "".join(axis for axis, sign in zip("xy", mirror.diagonal()) if sign < 0) or "none"
        assert torch.equal(flipped.lidar_bev()[0], torch.from_numpy(reader.dense(1, flip)))
        seen.add(flip)
    assert seen == set(FLIPS)


def test_cameras_reach_the_lidar_through_both_poses(batches):
    index = batches.index
    point = np.array([1.0, 2.0, 3.0, 1.0])
    for camera in range(6):
        in_global = index.camera_ego_to_global[2, camera] @ index.camera_to_ego[2, camera] @ point
        in_lidar = np.linalg.inv(index.lidar_ego_to_global[2] @ index.lidar_to_ego[2]) @ in_global
        np.testing.assert_allclose(camera_to_key_lidar(index, 2)[camera] @ point, in_lidar, atol=1e-9)


def test_without_val_the_end_of_train_is_held_out(batches):
    index = batches.index
    assert [s.tolist() for s in split_samples(index, 10)] == [[0, 1, 2, 3], [4]]
    index.__dict__["split"] = np.array(["train"] * SAMPLES)
    assert [s.tolist() for s in split_samples(index, 10)] == [[0, 1, 2, 3], [4]]
    index.__dict__["split"] = np.array(["train"] + [""] * (SAMPLES - 1))
    assert [s.tolist() for s in split_samples(index, 10)] == [[0], [0]]
