"""The renderer's check against files of other sizes than the public one, which the slow reference computes.

The reference itself is held against the original.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import conformance
import mim4d_render_reference as slow
from mim4d_render_files import oracle_file

ORIGINAL = Path(__file__).parents[3] / "shared" / "oracles" / "mim4d_render.npz"
WORLDS = {
    "two steps": slow.World((-20, -36, -4, 44, 28, 3), (12, 9, 4), 6, 8, 5, (2, 4), 20, 12, 2, 14, near=0.5),
    "one block": slow.World((-30, -30, -5, 30, 40, 3), (7, 11, 2), 4, 24, 3, (1, 1), 16, 6, 1, 10),
    "three steps": slow.World((-10, -8, -2, 10, 8, 6), (6, 5, 4), 4, 8, 16, (5, 3), 12, 9, 3, 10),
    "no steps": slow.World((-25, -20, -3, 15, 20, 5), (5, 6, 3), 3, 4, 2, (3, 2), 18, 6, 0, 8),
}


@cache
def file_of(world: str) -> dict[str, np.ndarray]:
    return oracle_file(WORLDS[world])


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("world", WORLDS)
def test_files_of_other_sizes(tmp_path, world, bf16):
    np.savez(tmp_path / "other.npz", **file_of(world))
    results = conformance.check_file(tmp_path / "other.npz", bf16)
    assert len(results) > 60
    assert [r.line(0) for r in results if r.status != "OK"] == []


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"near": 1.5}, "train/out/nears"),
        ({"box": (-20, -36, -4, 44, 28, 3.5)}, "train/out/fars"),
        ({"samples": 22}, "train/out/init_sampled_points"),
    ],
)
def test_a_file_of_another_world_fails(tmp_path, change, seen):
    other = replace(WORLDS["two steps"], **change)
    config = {"cfg": np.array(json.dumps(slow.config_of(other)))}
    np.savez(tmp_path / "other.npz", **file_of("two steps") | config)
    assert seen in [r.output for r in conformance.check_file(tmp_path / "other.npz") if r.status == "FAIL"]


@pytest.mark.parametrize("case", slow.CASES)
def test_the_reference_is_the_original(case):
    if not ORIGINAL.is_file():
        pytest.skip("needs the oracles in ../shared")
    with np.load(ORIGINAL) as file:
        stored = {key: file[key] for key in file.files}
    world, some = slow.world_of(stored), slice(None, 48, 8)
    weights, inputs = (
        {key.removeprefix(prefix): torch.from_numpy(value).double() for key, value in stored.items() if prefix in key}
        for prefix in (f"sd/{slow.PREFIX}", "inputs/")
    )
    rays = [inputs[name][some] for name in ("ray_o", "ray_d")]
    noise = [inputs[f"noise{i}"][some] for i in range(1 + world.steps)]
    found = slow.rays(world, weights, inputs["volume"], *rays, noise, *slow.CASES[case])
    for name, tolerance in (("rgb", 2e-5), ("depth", 6e-4), ("weights", 6e-5), ("z_vals", 6e-4), ("z_ends", 6e-4)):
        assert np.abs(found[name].detach().numpy() - stored[f"{case}/out/{name}"][some]).max() < tolerance
