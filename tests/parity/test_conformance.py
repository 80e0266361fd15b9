"""The parity check of files of our own: it passes what is right, and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import conformance
from oracles.base import Kind, Output, Tolerance

ROOT = Path(__file__).parents[2]


def target_file(batch, channels, size, patch):
    """In the format of geomim_target; patches are gone through one by one, in float64."""
    rng = np.random.default_rng(size)
    feature, *cameras = rng.normal(size=(3, batch, channels, size, size)).astype(np.float32)
    feature[0, :, :patch, :patch] = 0  # an empty patch
    target = np.zeros_like(feature)
    mean, variance, rows = [], [], []
    for b in range(batch):
        for x in range(0, size, patch):
            for y in range(0, size, patch):
                values = feature[b, :, x : x + patch, y : y + patch].astype(np.float64)
                mean.append(values.sum() / values.size)
                variance.append(((values - mean[-1]) ** 2).sum() / (values.size - 1))
                rows.append(values.transpose(1, 2, 0).ravel())
                normal = (values - mean[-1]) / np.sqrt(variance[-1] + 1e-6)
                target[b, :, x : x + patch, y : y + patch] = normal
    return {
        "inputs/lidar_feature": feature,
        "inputs/camera0": cameras[0],
        "inputs/camera1": cameras[1],
        "patch": np.array(patch),
        "patch_mean": np.reshape(mean, (batch, -1, 1)),
        "patch_var": np.reshape(variance, (batch, -1, 1)),
        "patchified_first_rows": np.reshape(rows, (batch, -1, patch * patch * channels))[:, :3],
        "out/target": target,
        "out/rec_loss": np.mean([((camera - target) ** 2).mean() for camera in cameras]),
    }


def voxel_file(clouds, low, high, size, max_points, max_voxels):
    """The voxels of teacher_sparse, point by point."""
    coords, kept = [], []
    for b, points in enumerate(clouds):
        voxels: dict[tuple, list] = {}
        for point in points:
            xyz = point[:3]
            if (xyz <= low).any() or (xyz >= high).any():
                continue
            cell = tuple(np.floor((xyz - low) / size).astype(int))
            if cell in voxels or len(voxels) < max_voxels:
                voxels.setdefault(cell, []).append(point)
        coords += [(b, *cell) for cell in voxels]
        kept += [points[:max_points] for points in voxels.values()]
    grid = np.round((high - low) / size).astype(int).tolist()
    config = {
        "point_cloud_range": [*low.tolist(), *high.tolist()],
        "voxel_size": size.tolist(),
        "max_num_points": max_points,
        "max_voxels": max_voxels,
        "sparse_shape": [*grid[:2], grid[2] + 1],
        "batch": len(clouds),
    }
    return {f"points/{b}": points for b, points in enumerate(clouds)} | {
        "cfg": np.array(json.dumps(config)),
        "voxel/coords": np.array(coords, np.int16),
        "voxel/num_points": np.array([len(points) for points in kept], np.int8),
        "voxel/mean": np.array([np.mean(points, 0) for points in kept], np.float32),
    }


def some_clouds():
    rng = np.random.default_rng(5)
    return [rng.normal(scale=(2, 2, 1, 50, 1), size=(count, 5)).astype(np.float32) for count in (700, 300)]


def some_voxels(max_points=3, max_voxels=150):
    low, high, size = (np.array(v, np.float32) for v in ((-4, -2, -1), (4, 4, 1), (0.5, 0.75, 0.25)))
    return voxel_file(some_clouds(), low, high, size, max_points, max_voxels)


def test_files_of_other_sizes(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", **target_file(batch=2, channels=3, size=12, patch=4))
    np.savez_compressed(tmp_path / "b.npz", **target_file(batch=1, channels=5, size=21, patch=7))
    np.savez(tmp_path / "c.npz", **some_voxels())
    assert conformance.main([str(tmp_path), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert {r["status"] for r in results} == {"OK"}
    assert {(r["file"], r["kind"]) for r in results} == {
        ("a.npz", "geomim_target"),
        ("b.npz", "geomim_target"),
        ("c.npz", "teacher_sparse"),
    }
    assert len([r for r in results if r["file"] == "a.npz"]) == 5
    assert len([r for r in results if r["file"] == "c.npz"]) == 3


def test_what_is_wrong_is_told_and_the_rest_still_checked(tmp_path, capsys):
    good = target_file(batch=1, channels=2, size=8, patch=4)
    (tmp_path / "1_torn.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez(tmp_path / "2_short.npz", **{k: v for k, v in good.items() if k != "inputs/camera1"} | {"patch": 3})
    np.savez(tmp_path / "3_biased.npz", **good | {"out/target": good["out/target"] * np.sqrt(31 / 32)})
    np.savez(tmp_path / "4_unlike.npz", **good | {"out/target": good["out/target"][:, :, 1:], "extra/a": 1})
    np.savez(tmp_path / "5_strange.npz", **{"something/else": np.zeros(3)})
    voxels = some_voxels() | {"voxel/coords": some_voxels()["voxel/coords"][::-1]}
    np.savez(tmp_path / "6_order.npz", **voxels)
    assert conformance.main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()

    def having(*words):
        return [line for line in lines if all(word in line for word in words)]

    assert having("1_torn.npz", "FAIL")
    assert having("2_short.npz", "FAIL", "whole number of 3-cell patches")
    assert having("2_short.npz", "patch_var", "NOT REACHED")
    assert len(having("3_biased.npz", "FAIL")) == 1
    assert len(having("3_biased.npz", "OK")) == 4
    assert having("4_unlike.npz", "out/target", "FAIL", "shape (1, 2, 8, 8), wanted (1, 2, 7, 8)")
    assert having("4_unlike.npz", "extra/a", "NOT COVERED")
    assert having("5_strange.npz", "everything", "NOT COVERED")
    assert having("6_order.npz", "voxel/coords", "FAIL")
    assert having("6_order.npz", "voxel/mean", "OK")
    assert lines[-1].startswith("6 files:")


def test_an_archive_that_wants_to_run_code_is_not_read(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", **{"points/0": np.array([print], object), "voxel/coords": np.zeros(1)}, cfg="{}")
    assert conformance.main([str(tmp_path)]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_only_what_is_asked_for(tmp_path, capsys):
    np.savez(tmp_path / "first.npz", **target_file(1, 2, 8, 4))
    np.savez(tmp_path / "second.npz", **some_voxels())
    for words in (["fir*"], ["first.npz"], ["geomim_target"]):
        assert conformance.main([str(tmp_path), *words, "--json"]) == 0
        assert {r["file"] for r in json.loads(capsys.readouterr().out)} == {"first.npz"}
    assert conformance.main([str(tmp_path), "imageaug"]) == 2
    assert "imageaug" in capsys.readouterr().err


@pytest.mark.parametrize(("folder", "sentence"), [("missing", "no such folder"), (".", "no .npz file")])
def test_nothing_to_check(tmp_path, capsys, folder, sentence):
    assert conformance.main([str(tmp_path / folder)]) == 2
    assert sentence in capsys.readouterr().err


def test_the_command(tmp_path):
    np.savez(tmp_path / "a.npz", **target_file(1, 2, 8, 4))
    command = [sys.executable, "bench/parity.py", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == "1 files: 5 OK"


# --- one output -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("got", "tolerance", "status"),
    [
        ([1, 2, 3, 4], Tolerance(), "OK"),
        ([1, 2, 3, 4.1], Tolerance(), "FAIL"),
        ([1, 2, 3, 4.1], Tolerance(0.2), "OK"),
        ([1, 2, 3, 4.1], Tolerance(relative=0.03), "OK"),
        ([1.05, 2, 3, 4], Tolerance(relative=0.03), "FAIL"),
        ([1.3, 2, 3, 4], Tolerance(of_max=0.1), "OK"),
        ([1.5, 2, 3, 4], Tolerance(of_max=0.1), "FAIL"),
        ([1, 2, 3, 9], Tolerance(share=0.75), "OK"),
        ([1, 2, 8, 9], Tolerance(share=0.75), "FAIL"),
        ([1, 2, 3, np.nan], Tolerance(100), "FAIL"),
        ([1, 2, 3, np.inf], Tolerance(100), "FAIL"),
        ([[1, 2, 3, 4]], Tolerance(100), "FAIL"),
        ([], Tolerance(100), "FAIL"),
    ],
)
def test_one_output(tmp_path, monkeypatch, got, tolerance, status):
    def check(oracle):
        yield Output("value", np.array(got, float), tolerance)
        yield Output("absent", 0, tolerance)

    monkeypatch.setattr(conformance, "KINDS", (Kind("mine", ("value",), (), (check,)),))
    np.savez(tmp_path / "a.npz", value=np.array([1, 2, 3, 4]))
    (result,) = conformance.check_file(tmp_path / "a.npz")
    assert result.status == status
    json.dumps(result.absolute_error, allow_nan=False)


@pytest.mark.parametrize(
    ("got", "tolerance", "status"),
    [
        ([1, 2, 3, 4.1], Tolerance(), "FAIL"),  # data
        ([1, 2, 3, 4], Tolerance(), "OK"),
        ([1, 2, 3, 4.1], Tolerance(bf16=0.02), "OK"),  # the norm of the wanted values is 5.5
        ([1, 2, 3, 4.2], Tolerance(bf16=0.02), "FAIL"),
        ([1.1, 2.1, 3.1, 4.1], Tolerance(1.0, bf16=0.02), "FAIL"),
        ([1, 2, 3, np.nan], Tolerance(bf16=100), "FAIL"),
        ([1, 2, 3, np.inf], Tolerance(bf16=100), "FAIL"),
        ([1, 2, 3], Tolerance(bf16=100), "FAIL"),
    ],
)
def test_one_output_in_bf16(tmp_path, monkeypatch, got, tolerance, status):
    def check(oracle):
        yield Output("value", np.array(got, float), tolerance)

    monkeypatch.setattr(conformance, "KINDS", (Kind("mine", ("value",), (), (check,)),))
    np.savez(tmp_path / "a.npz", value=np.array([1, 2, 3, 4]))
    (result,) = conformance.check_file(tmp_path / "a.npz", bf16=True)
    assert result.status == status


def test_networks_round_where_they_are_asked_to(tmp_path, monkeypatch, capsys):
    """The same product, of a network in float32 and of data in float64."""

    def check(oracle):
        a = oracle["value"]
        yield Output("value (network)", a.float() @ torch.eye(3), Tolerance(bf16=0.01))
        yield Output("value (data)", a @ torch.eye(3, dtype=torch.float64), Tolerance())

    monkeypatch.setattr(conformance, "KINDS", (Kind("mine", ("value",), (), (check,)),))
    np.savez(tmp_path / "a.npz", value=np.array([[1266.0, 0, 816.0], [0, 1266.0, 491.0], [0, 0, 1]]))
    for options, errors in (([], [0.0, 0.0]), (["--autocast", "bf16"], [2.0, 0.0])):
        assert conformance.main([str(tmp_path), "--json", *options]) == 0
        assert [r["absolute_error"] for r in json.loads(capsys.readouterr().out)] == errors
