import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.engine.config import PRESETS, load_config
from tasks.finetune.config import FinetuneConfig

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"image": {"size": (250, 704)}}, r"image.size \(250, 704\) must be multiples of 32"),
        ({"bev_cell": 0.75}, "2 \\* bev_range / bev_cell = 136.533 must be a multiple of 8"),
        ({"bev_range": 50.4, "bev_cell": 0.8}, "= 126 must be a multiple of 8"),
        ({"depth_bins": (60.0, 1.0, 1.0)}, "must be nearest < farthest"),
        ({"from_scratch": False}, "from_scratch is baseline now"),
        ({"height": (3.0, -5.0)}, "height .* must ascend"),
        ({"bev_cell": 0.0008}, "bev_range by bev_cell, a map of 128,000 x 128,000 cells, would take 5,243 GB: make it"),
        ({"depth_bins": (1.0, 60.0, 1e-9)}, "depth_bins, 59,000,000,000 of them, would take"),
        ({"image": {"size": (320_000, 704_000)}}, "image.size of 320,000 x 704,000 px would take"),
        ({"view": {"stereo": True, "frames": 2}}, "stereo needs frames = 2 and camera_aware = true"),
        ({"view": {"stereo": True, "camera_aware": True}}, "stereo needs frames = 2 and camera_aware = true"),
        ({"batch_size": 6, "accumulate": 4}, r"batch_size is 6, which accumulate \(4\) times .* does not divide"),
        ({"task": "occupancy"}, "needs bev_range = 40, Occ3D's, not 51.2"),
        ({"task": "occupancy", "bev_range": 40.0, "bev_cell": 0.4, "bev_scale": 0.0}, "bev_rotation = bev_scale = 0"),
        ({"task": "segmentation", "view": {"key_ego": "camera"}}, "segmentation needs view.key_ego = lidar"),
        ({"epochs": 3}, "epochs"),
        ({"rate": float("nan")}, "finite"),
    ],
)
def test_combinations_that_cannot_work_are_refused(values, sentence):
    with pytest.raises(ValidationError, match=sentence):
        FinetuneConfig(**values)


def test_how_it_runs_is_no_part_of_the_key():
    one, other = FinetuneConfig(), FinetuneConfig(threads=3, device="cpu", loaders=1, seconds_between_saves=5.0)
    assert one.key_fields() == other.key_fields()
    assert one.key_fields() != FinetuneConfig(seed=1).key_fields()
    assert "embed_dim" in one.key_fields()["backbone"]


def test_the_config_needs_no_torch():
    code = "import sys, tasks.finetune.config; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def rows(name: str) -> dict:
    """What a preset says of finetuning."""
    return load_config(PRESETS / f"{name}.yaml").finetune.model_dump()


def test_the_presets_are_the_published_table():
    geomim, stereo, large = (
        rows(name) for name in ("bevdet4d-geomim", "bevstereo4d-geomim", "bevstereo4d-geomim-512x1408")
    )
    baseline = rows("bevdet4d-imagenet")
    for preset in (baseline, geomim, stereo, large):
        assert (preset["rate"], preset["clip_norm"], preset["warmup"], preset["final_rate"]) == (2e-4, 5, 200, 1)
        assert (preset["ema"], preset["sampling"], preset["view"]["frames"]) == (0.999, "cbgs", 2)
        assert (preset["bev_rotation"], preset["bev_scale"], preset["bev_flip"]) == (22.5, 0.05, True)
        assert preset["steps"] * preset["batch_size"] == pytest.approx(20 * 123_580, rel=1e-3)  # 20 epochs of CBGS
        assert preset["view"]["previous_from"] == preset["steps"] // 10
        image = preset["image"]
        assert (image["resize"], image["resize_test"], image["crop_h"]) == ((-0.06, 0.11), 0, (0, 0))
        assert (image["rot"], image["flip"]) == ((-5.4, 5.4), True)
    names = ("weight_decay", "layer_decay", "drop_path", "bev_cell", "depth_weight", "image_width", "class_groups")
    assert [baseline[name] for name in names] == [0.01, 1.0, 0.1, 0.8, 0, 256, "one"]
    assert [geomim[name] for name in names] == [0.05, 0.8, 0.2, 0.8, 0, 256, "one"]
    assert [stereo[name] for name in names] == [0.05, 0.85, 0.2, 0.8, 3, 512, "six"]
    assert [large[name] for name in names] == [0.05, 0.85, 0.2, 0.4, 3, 512, "six"]
    assert [p["view"]["depth_spacing"] for p in (geomim, stereo, large)] == ["even", "log", "log"]
    assert not any(p["view"]["channels"] == "bgr" for p in (geomim, stereo, large))


@pytest.mark.parametrize("path", sorted((PRESETS / "released").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_a_released_detector_expects_is_three_quirks(path):
    quirks = {"channels": "bgr", "key_ego": "camera", "truncate_cells": True}
    corrected = rows(path.stem)
    assert rows(f"released/{path.stem}") == corrected | {"view": corrected["view"] | quirks}
