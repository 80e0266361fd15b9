"""Numbers that no stage would leave are noticed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gallery.health import ODD, health
from storage.bev import BevAttributes, BevWriter

STAGES = ("ingest", "fit", "teacher", "depth", "pretrain", "finetune", "evaluate")


@pytest.mark.parametrize("stage", STAGES)
def test_a_finished_run_looks_sound(finished, stage):
    seen = health(finished[0].path(stage))
    assert seen
    assert not [facts[ODD] for facts in seen.values() if ODD in facts]


def bev(folder: Path, maps: np.ndarray) -> Path:
    attributes = BevAttributes((-2.0, -2.0, -1.0, 2.0, 2.0, 1.0), (1.0, 1.0), part_size=len(maps))
    tokens = np.array([f"sample{n}" for n in range(len(maps))])
    BevWriter(folder / "bev.zarr", tokens, maps.shape[1:], attributes).write(0, maps)
    return folder


@pytest.mark.parametrize(
    ("maps", "words"),
    [(np.zeros((3, 2, 4, 4)), "all features are zero"), (np.ones((3, 2, 4, 4)), "all samples have the same features")],
)
def test_a_teacher_that_says_nothing(tmp_path, maps, words):
    assert health(bev(tmp_path, maps))["bev.zarr"][ODD] == words


def test_a_teacher_that_says_something(tmp_path):
    facts = health(bev(tmp_path, np.random.default_rng(0).normal(size=(3, 2, 4, 4))))["bev.zarr"]
    assert ODD not in facts
    assert facts["looked_at"] == "3 of 3 samples"
    assert facts["active_share"] == "least 1.0000, mean 1.0000, greatest 1.0000"


def test_weights_that_are_nan(finished, tmp_path):
    weights = load_file(finished[0].path("finetune") / "detector.safetensors")
    name = next(name for name, value in weights.items() if value.dtype == np.float32)
    save_file(weights | {name: np.full_like(weights[name], np.nan)}, tmp_path / "detector.safetensors")
    facts = health(tmp_path)["detector.safetensors"]
    assert facts[ODD] == f"1 tensors hold NaN or infinity, such as {name}"
    assert facts["parameters"] == sum(value.size for value in weights.values())


def test_damage_is_said(finished, tmp_path):
    copy = Path(shutil.copytree(finished[0].path("depth"), tmp_path / "depth"))
    chunk = next(path for path in (copy / "depth.zarr" / "u").rglob("*") if path.is_file() and path.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[:-9] + b"123456789")
    assert "depth.zarr" in health(copy)["depth.zarr"][ODD]
