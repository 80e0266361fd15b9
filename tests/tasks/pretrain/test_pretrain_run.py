"""Pretraining on a handful of made-up samples, through the real stores and the real loop."""

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from safetensors.torch import load_file

from batches.geomim import GeoMIMBatches
from common.errors import DataError, StageFailed, UserError
from damages import damaged_in_turn, emptied
from geomim_configs import geomim_batches, geomim_config
from models.backbones.build import build_backbone
from models.names import CAMERAS, CLASSES
from no_waiting import step_without_waiting
from products import fast_products
from rank_jobs import KilledAt3
from storage.artifact import Artifact
from storage.bev import BevAttributes, BevReader, BevWriter
from storage.depth import DepthReader, DepthWriter, SamplePoints
from storage.index import FIXED, SCHEMA, Index, IndexAttributes, write_index
from tasks.engine.stage import Inputs
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.geomim.method import GeoMIMEvaluator
from tasks.pretrain.geomim.picture import COLOURS_FILE
from tasks.pretrain.run import export, run
from tasks.pretrain.samples import split_samples
from tasks.pretrain.task import PretrainTask
from what_kernels_get import Geometry

SAMPLES, WIDTH, HEIGHT = 5, 128, 72
CONFIG = {
    "backbone": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4), "window_sizes": (8, 4, 4, 2)},
    "image": {"size": (64, 96)},
    "decoder": {"width": 16, "num_heads": 2, "depth": 4},
    "depth_bins": (1.0, 11.0, 1.0),
    "depth_sweeps": 0,
    "context": 4,
    "patch": 4,
    "steps": 4,
    "batch_size": 2,
    "warmup": 1,
    "evaluate_every": 3,
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
    depth = DepthWriter(artifacts["depth"].path / "depth.zarr", index.token, CAMERAS, 0, SAMPLES, most=300)
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


class InterruptedAt2(Artifact):
    def write_progress(self, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt


def pretrain(
    world: Inputs, folder: Path, kind: type[Artifact] = Artifact, **fields
) -> tuple[dict, dict[str, torch.Tensor]]:
    artifact = kind(folder, "pretrain", "0" * 64)
    artifact.path.mkdir(parents=True, exist_ok=True)
    summary = run(geomim_config(**CONFIG | fields), world, artifact)
    return summary, load_file(artifact.path / "model.safetensors")


@pytest.mark.parametrize("fields", [{}, {"accumulate": 2, "ema": 0.999}])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(world, tmp_path, fields):
    summary, weights = pretrain(world, tmp_path / "whole", **fields)
    folder = tmp_path / "whole/pretrain" / ("0" * 16)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(4))
    assert [line["step"] for line in lines if "held_out_depth" in line] == [2, 3]
    assert summary["held_out_reconstruction"] == lines[-1]["held_out_reconstruction"]
    assert summary["held_out_zero"] == pytest.approx(1, abs=0.05)
    assert (folder / "pretrain.png").stat().st_size > 10_000
    assert not (folder / "checkpoint.pt").exists()

    with pytest.raises(KeyboardInterrupt):
        pretrain(world, tmp_path / "stopped", kind=InterruptedAt2, **fields)
    assert (tmp_path / "stopped/pretrain" / ("0" * 16) / ".checkpoint.pt").is_file()
    again, resumed = pretrain(world, tmp_path / "stopped", **fields)
    assert again == summary
    assert weights.keys() == resumed.keys()
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


def test_every_damaged_file_of_an_interrupted_run_is_made_again(world, tmp_path):
    """Interrupted when all was there but the manifest. (Other damages: in the tests of `fit` and `finetune`.)"""
    fields = {"steps": 3, "probe_samples": 0, "evaluate_every": 100}
    summary, _ = pretrain(world, tmp_path, **fields)
    folder, names = tmp_path / "pretrain" / ("0" * 16), ("model.safetensors", "backbone.safetensors", COLOURS_FILE)
    whole = [(folder / name).read_bytes() for name in names]
    seen = []
    for name in damaged_in_turn(folder, emptied):
        seen.append(name)
        assert pretrain(world, tmp_path, **fields)[0] == summary, name
        assert [(folder / name).read_bytes() for name in names] == whole, name
    assert {*names, ".checkpoint.pt", ".checkpoint.pt.before", "metrics.jsonl", "pretrain.png"} < set(seen)


@pytest.mark.usefixtures("forked_ranks")
@pytest.mark.timeout(300)
def test_two_ranks_learn_as_one_does(world, tmp_path):
    """The same losses to rounding; killed and resumed, the same weights exactly, or to rounding on one rank."""
    fields = {"batch_size": 4, "accumulate": 2, "ema": 0.999, "evaluate_every": 100, "probe_samples": 0}
    two, weights = pretrain(world, tmp_path / "two", ranks=2, **fields)
    with pytest.raises(StageFailed, match="rank 0 of 2 was killed by SIGKILL; the same command goes on from there"):
        pretrain(world, tmp_path / "killed", kind=KilledAt3, ranks=2, **fields)
    shutil.copytree(tmp_path / "killed", tmp_path / "moved")
    again, resumed = pretrain(world, tmp_path / "killed", ranks=2, **fields)
    assert again == two
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)

    one, _ = pretrain(world, tmp_path / "one", **fields)
    pretrain(world, tmp_path / "moved", **fields)
    runs = {name: losses(tmp_path / name) for name in ("two", "killed", "one", "moved")}
    assert runs["two"] == runs["killed"]
    assert len(runs["one"]) == 4
    np.testing.assert_allclose(runs["two"], runs["one"], rtol=1e-5)
    np.testing.assert_allclose(runs["moved"], runs["one"], rtol=1e-5)
    assert two["held_out_reconstruction"] == pytest.approx(one["held_out_reconstruction"], rel=1e-4)


def test_cameras_are_the_same_in_every_precision(world, tmp_path):
    """The cells of splats and the numbers that describe cameras, in training and in the held-out evaluation."""
    seen = []
    for precision in ("fp32", "bf16"):
        with fast_products(), Geometry() as geometry:
            pretrain(world, tmp_path / precision, steps=2, precision=precision)
        seen.append(geometry)
    assert len(seen[0].points) > 2 * 2 * 3  # steps, halves; points and bags forward, bags backward
    assert len(seen[0].numbers) >= 2
    assert seen[0].same_as(seen[1])


def test_depth_alone_and_features_alone_can_be_learnt(world, tmp_path):
    for name, weight in (("depth", "reconstruction_weight"), ("reconstruction", "depth_weight")):
        pretrain(world, tmp_path / name, steps=2, **{weight: 0})
        log = tmp_path / name / "pretrain" / ("0" * 16) / "metrics.jsonl"
        lines = [line for line in map(json.loads, log.read_text().splitlines()) if "loss" in line]
        assert all(line["loss"] == line[name] for line in lines)
        assert {"depth", "reconstruction"} & set(lines[0]) == {name}


def losses(folder: Path) -> list[list[float]]:
    """Loss, its terms and the gradient's norm at each step."""
    lines = (folder / "pretrain" / ("0" * 16) / "metrics.jsonl").read_text().splitlines()
    names = ("loss", "reconstruction", "depth", "gradient_norm")
    return [[line[name] for name in names] for line in map(json.loads, lines) if "loss" in line]


@pytest.mark.usefixtures("forked_ranks")
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("change", "told"), [("gone", "is missing; complete"), ("damaged", "does not decode")])
def test_an_image_that_is_gone_or_damaged_is_named(world, tmp_path, change, told, ranks):
    """With its sample. Damaged: zeros in the middle of a file that begins and ends as it should."""
    path = world.dataroot / "samples/CAM_BACK/2.jpg"
    path.rename(hidden := path.with_suffix(".away"))
    if change == "damaged":
        data = bytearray(hidden.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
        path.write_bytes(data)
    try:
        with pytest.raises(DataError, match=rf"^sample sample-2: .*CAM_BACK/2.jpg: {told}"):
            pretrain(world, tmp_path, batch_size=2, ranks=ranks)
    finally:
        hidden.replace(path)


def test_the_backbone_is_what_finetuning_builds(world, tmp_path):
    pretrain(world, tmp_path, steps=1)
    weights = load_file(tmp_path / "pretrain" / ("0" * 16) / "backbone.safetensors")
    build_backbone(geomim_config(**CONFIG).backbone).load_state_dict(weights)


def test_the_backbone_can_learn_at_a_rate_of_its_own(world, tmp_path):
    """AdamW's first step moves a weight by its rate, whatever the gradient."""
    rate = {"rate": 1e-3, "weight_decay": 0.0, "steps": 1, "warmup": 0}
    torch.manual_seed(0)
    before = build_backbone(geomim_config(**CONFIG).backbone).state_dict()
    for factor in (1.0, 0.25):
        _, after = pretrain(world, tmp_path / str(factor), **rate, backbone_rate=factor)
        moved = [(after[f"backbone.{name}"] - weight).abs().max().item() for name, weight in before.items()]
        assert max(moved) == pytest.approx(factor * 1e-3, rel=0.02)


def test_a_training_that_diverges_is_called_so(world, tmp_path):
    with pytest.raises(UserError, match=r"pretrain: steps \d+ to 5: .*: training has diverged; lower pretrain\.rate"):
        pretrain(world, tmp_path, rate=1e30, warmup=0, steps=6)


@pytest.mark.usefixtures("forked_ranks")
@pytest.mark.parametrize("fields", [{}, {"ranks": 2, "batch_size": 4}], ids=["one rank", "two ranks"])
def test_a_poisoned_sample_is_skipped_or_left_out(world, tmp_path, fields):
    """A calibration whose variance is infinite: its steps are skipped; without the sample, nothing is amiss."""
    poisoned = Inputs(world.dataroot, world.version, dict(world.artifacts))
    poisoned.artifacts["ingest"] = Artifact(tmp_path, "ingest", "poisoned")
    shutil.copytree(world["ingest"].path, poisoned["ingest"].path)
    zarr.open_group(poisoned["ingest"].path / "index.zarr", mode="r+")["intrinsics"][2, 3] = np.diag([1e38, 1e38, 1])
    options = {"probe_samples": 0, "steps": 8, "batch_size": 1} | fields

    if "ranks" not in fields:
        summary, weights = pretrain(poisoned, tmp_path / "skipped", **options)
        log = tmp_path / "skipped/pretrain" / ("0" * 16) / "metrics.jsonl"
        rows = [row for row in map(json.loads, log.read_text().splitlines()) if "skipped" in row]
        assert [row["samples"] for row in rows] == [["sample-2"]] * summary["skipped_steps"]
        assert rows
        assert all(weight.isfinite().all() for weight in weights.values())
    else:
        with pytest.raises(UserError, match=r"pretrain: steps 0 to 7: .*--set 'pretrain\.skip_samples="):
            pretrain(poisoned, tmp_path / "left out", **options)
    summary, weights = pretrain(poisoned, tmp_path / "left out", skip_samples=["sample-2"], **options)
    assert "skipped_steps" not in summary
    assert summary["skip_samples"] == ["sample-2"]
    assert summary["samples"] == 3
    assert all(weight.isfinite().all() for weight in weights.values())


def test_no_sample_counts_twice_in_place_of_one_that_is_left_out(world, tmp_path, monkeypatch):
    """In the answers of who sees nothing, and in the probe."""
    given = []

    class Seen(GeoMIMEvaluator):
        def __init__(self, batches, config, samples, train, device):
            given.append(train.tolist())
            super().__init__(batches, config, samples, train, device)

    monkeypatch.setattr("tasks.pretrain.geomim.method.GeoMIMEvaluator", Seen)
    pretrain(world, tmp_path, steps=1, skip_samples=["sample-2"])
    assert given == [[0, 1, 3]]


def test_a_full_disk_leaves_no_half_weights(world, tmp_path):
    """As large as the file may grow: half of the model."""
    model = torch.nn.Linear(100, 100)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            export(model, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.iterdir()) == []
    export(model, tmp_path)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["weight"], model.weight)


def test_more_sweeps_than_the_depth_cache_holds(world, tmp_path):
    with pytest.raises(UserError, match=r"depth_sweeps is 3, but depth\.sweeps keeps only 0"):
        pretrain(world, tmp_path, depth_sweeps=3)


@pytest.fixture
def batches(world) -> GeoMIMBatches:
    index = Index.open(world["ingest"].path / "index.zarr")
    bev, depth = BevReader(world["teacher"].path / "bev.zarr"), DepthReader(world["depth"].path / "depth.zarr")
    return geomim_batches(geomim_config(**CONFIG), world.dataroot, index, bev, depth)


def test_without_val_the_end_of_train_is_held_out(batches):
    index = batches.index
    assert [s.tolist() for s in split_samples(index, 10)] == [[0, 1, 2, 3], [4]]
    index.__dict__["split"] = np.array(["train"] * SAMPLES)
    assert [s.tolist() for s in split_samples(index, 10)] == [[0, 1, 2, 3], [4]]
    index.__dict__["split"] = np.array(["train"] + [""] * (SAMPLES - 1))
    assert [s.tolist() for s in split_samples(index, 10)] == [[0], [0]]


def test_pixels_can_be_the_target(world, tmp_path):
    artifact = Artifact(tmp_path, "pretrain", "0" * 64)
    artifact.path.mkdir(parents=True)
    shared = {name: value for name, value in CONFIG.items() if name in PretrainConfig.model_fields}
    method = {"name": "pixels", "decoder": CONFIG["decoder"]}
    config = PretrainConfig(**shared | {"method": method, "steps": 30, "rate": 3e-3})
    summary = run(config, world, artifact)
    log = [json.loads(line) for line in (artifact.path / "metrics.jsonl").read_text().splitlines()]
    trained, marks = ([line for line in log if name in line] for name in ("pixels", "held_out_zero"))
    assert len(trained) == 30
    assert {"depth", "reconstruction"}.isdisjoint(trained[0])
    assert trained[-1]["pixels"] < trained[0]["pixels"] - 0.05
    # Noise below ten rows of black, which are all that there is to learn: of noise alone the best answer is 0, whose
    # error is 767/768 for a variance over n - 1.
    assert summary["held_out_zero"] == pytest.approx(767 / 768, abs=1e-3)
    assert summary["held_out_reconstruction"] < marks[0]["held_out_reconstruction"] - 0.05
    assert summary["held_out_reconstruction"] < summary["held_out_zero"] - 0.05
    backbone = build_backbone(config.backbone)
    backbone.load_state_dict(load_file(artifact.path / "backbone.safetensors"))
    assert (artifact.path / "pretrain.png").stat().st_size > 10_000


PIXELS = {"name": "pixels", "decoder": {"width": 16, "num_heads": 2, "depth": 4}}


@pytest.mark.parametrize("fields", [{}, {"bev_flip": True}, {"method": PIXELS}], ids=["geomim", "mirrored", "pixels"])
def test_a_step_waits_for_nothing(world, fields):
    config = geomim_config(**CONFIG)
    if "method" in fields:
        config = PretrainConfig(**{name: CONFIG[name] for name in ("backbone", "image", "batch_size")} | fields)
    index = Index.open(world["ingest"].path / "index.zarr")
    method = config.method.method()(config, config.method, world, index)
    model, (samples, _) = method.build(), split_samples(index, 1)
    assert (
        step_without_waiting(PretrainTask(config, method, model, samples, None), model, method.batch(range(2), samples))
        == []
    )
