"""The parity check passes what is right, and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import conformance
from dataroot.images import decode
from models.layouts.mim4d import TEMPORAL, released_name
from models.mim4d.temporal import TemporalDecoder, TemporalSpec
from oracles.base import Kind, Oracle, Output, Tolerance

ROOT = Path(__file__).parents[2]
ORACLES = ROOT.parent / "shared" / "oracles"


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("path", sorted(ORACLES.glob("*.npz")), ids=lambda path: path.stem)
def test_the_originals_outputs(path, bf16):
    results = conformance.check_file(path, bf16)
    kind = conformance.kind_of(Oracle(path))
    assert kind.name != "unknown"
    wrong = [r.line(0) for r in results if r.status != "OK"]
    if kind.checks:
        assert not wrong
    else:
        assert not [line for line in wrong if "NOT COVERED" not in line]


def stored(name):
    path = ORACLES / f"{name}.npz"
    if not path.is_file():
        pytest.skip("needs the oracles in ../shared")
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize(
    ("name", "output", "place", "by"),
    [
        ("geomim_target", "out/target", (0, 3, 100, 7), 3e-5),
        ("geomim_target", "patch_var", (0, 40, 0), 1e-3),
        ("imageaug", "image1", (100, 200, 1), 1),
        ("imageaug", "test_matrix (shift)", (0, 3), 1e-3),
        ("bevdet_aug", "bda/boxes_after", (0, 3, 6), 1e-3),
        ("bevdet_aug", "sequence/crop", (2, 1), 1),
    ],
)
def test_a_changed_output_fails(tmp_path, capsys, name, output, place, by):
    arrays = stored(name)
    key = output.partition(" ")[0]
    arrays[key][place] += np.asarray(by, arrays[key].dtype)
    np.savez(tmp_path / "changed.npz", **arrays)
    assert conformance.main([str(tmp_path), "--json"]) == 1
    results = {r["output"]: r for r in json.loads(capsys.readouterr().out)}
    assert [name for name, r in results.items() if r["status"] == "FAIL"] == [output]
    # float32 arrays take the change with its rounding
    assert results[output]["absolute_error"] == pytest.approx(by, rel=0.05)


def test_cameras_in_bfloat16_fail(tmp_path):
    """Also by what networks make of their images: no tolerance of a rounding network hides a wrong geometry."""
    arrays = stored("geomim_lss")
    for name in ("camera_intrinsics", "img_aug_matrix", "camera2lidar"):
        matrices = torch.from_numpy(arrays[f"inputs/{name}"])
        arrays[f"inputs/{name}"] = matrices.bfloat16().float().numpy()
    np.savez(tmp_path / "rounded.npz", **arrays)
    results = {r.output: r for r in conformance.check_file(tmp_path / "rounded.npz", bf16=True)}
    geometric = {"geom/cell_flat", "geom/xyz_sub", "geom/cell_sub (flat)"}
    failed = {name for name, r in results.items() if r.status == "FAIL" and not name.startswith("depth/")}
    assert failed == geometric | {"out/bev_pooled (own cells)", "out/bev (own cells)"}
    assert all("norm" in results[name].tolerance for name in failed - geometric)


# --- the original's numbers under other settings ----------------------------------------------------------------------


def statuses(tmp_path, capsys, arrays):
    """Output -> OK or FAIL of a file of these arrays."""
    np.savez(tmp_path / "other.npz", **arrays)
    conformance.main([str(tmp_path), "--json"])
    return {r["output"]: r["status"] for r in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize("kept", [(48, 32), (20, 48)])
def test_a_neck_of_unequal_widths(tmp_path, capsys, kept):
    """SECONDFPN's output channels do not depend on each other: without some of them the original says the others."""
    arrays = {key: value for key, value in stored("teacher_bev").items() if not key.startswith("head")}
    config = json.loads(str(arrays["cfg"]))
    widths = config["neck"]["out_channels"]
    config["neck"]["out_channels"] = list(kept)
    for level, width in enumerate(kept):
        deblock = f"sd/decoder.neck.deblocks.{level}"
        resize = arrays[f"{deblock}.0.weight"]
        # A plain convolution's kernel has what comes out first, a transposed one's what comes in.
        arrays[f"{deblock}.0.weight"] = resize[:width] if len(resize) == widths[level] else resize[:, :width]
        for name in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{deblock}.1.{name}"] = arrays[f"{deblock}.1.{name}"][:width]
    neck = arrays["out/neck"]
    arrays["out/neck"] = np.concatenate([neck[:, : kept[0]], neck[:, widths[0] : widths[0] + kept[1]]], 1)
    found = statuses(tmp_path, capsys, arrays | {"cfg": np.array(json.dumps(config))})
    assert found == {"out/backbone0": "OK", "out/backbone1": "OK", "out/neck": "OK"}


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_another_eps_is_not_the_same_network(tmp_path, capsys, eps):
    arrays = {key: value for key, value in stored("teacher_bev").items() if not key.startswith("head")}
    config = json.loads(str(arrays["cfg"]))
    config["neck"]["norm_eps"] = eps
    found = statuses(tmp_path, capsys, arrays | {"cfg": np.array(json.dumps(config))})
    assert (found["out/backbone1"], found["out/neck"]) == ("OK", "FAIL")


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_a_temporal_decoder_of_other_sizes(tmp_path, bf16):
    """In the original's format, with none of the stored file's sizes; the numbers are our own."""
    spec = TemporalSpec(
        (7, 5),
        channels=3,
        heights=4,
        frames=3,
        width=36,
        reduction=3,
        short_heads=3,
        layers=1,
        short_ffn=20,
        long_ffn=8,
    )
    torch.manual_seed(0)
    net, volumes, weight = TemporalDecoder(spec), torch.randn(1, 3, 3, 4, 7, 5), torch.randn(1, 3, 4, 7, 5)
    for name, parameter in net.named_parameters():
        if "attention" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    loss = (net(volumes) * weight).mean()
    loss.backward()
    state = {released_name(TEMPORAL + name): parameter for name, parameter in net.named_parameters()}

    def branch(heads: int, frames: int) -> dict:
        attention = {"num_heads": heads, "num_bev_queue": frames}
        return {"num_layers": 1, "transformerlayers": {"attn_cfgs": [attention]}}

    config = {"bev_h": 7, "bev_w": 5, "num_adj": 3, "embed_dims": 36, "reduction": 3}
    config |= {"decoder_short": branch(3, 1), "decoder_long": branch(2, 3)}
    motion = torch.eye(4).repeat(2, 1, 1)
    motion[1, :2, 3] = torch.tensor([1.0, -2.0])
    moved = torch.zeros(1, 3, 4, 7, 5)
    moved[..., 2:, :-1] = volumes[:, 0, ..., :-2, 1:]  # the key frame stands at (1, -2) in the other
    tensors = {
        **{f"sd/{name}": value for name, value in state.items()},
        **{f"gradnorm/{name}": value.grad.norm() for name, value in state.items()},
        **{f"inputs/volume{i}": volumes[:, i] for i in range(3)},
        "out/volume": net(volumes),
        "grad/weight": weight,
        "grad/loss": loss,
        "shift/lidar2ego": torch.eye(4).repeat(2, 1, 1),
        "shift/ego2global": motion.flip(0),
        "shift/volume_key": moved,
    }
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    np.savez(tmp_path / "other.npz", cfg=np.array(json.dumps(config)), **arrays)
    results = conformance.check_file(tmp_path / "other.npz", bf16)
    assert [(r.output, r.status, r.detail) for r in results if r.status != "OK"] == []
    assert {r.output for r in results} == {"out/volume", "grad/loss", "gradnorm/*", "shift/volume_key"}


def test_what_the_bottom_loses(tmp_path, capsys):
    """crop_h in training and in the test, where BEVDet cuts by its mean: draws, matrices and pixels, Pillow's own."""
    arrays = stored("bevdet_aug")
    config = json.loads(str(arrays["cfg"]))
    data = config["data_config"] | {"crop_h": [0.05, 0.25], "resize_test": 0.02}
    (height, width), (source_height, source_width) = data["input_size"], data["src_size"]
    source = Image.fromarray(decode(arrays["image/source_jpeg"].tobytes()))
    random = np.random.RandomState(config["numpy_seed"]["image"])
    for name, count in (("train", 10), ("test", 1)):
        draws, posts, images = [], [], []
        for _ in range(count):
            fit = width / source_width
            resize = fit + (random.uniform(*data["resize"]) if name == "train" else data["resize_test"])
            new_width, new_height = int(source_width * resize), int(source_height * resize)
            share = random.uniform(*data["crop_h"]) if name == "train" else np.mean(data["crop_h"])
            top = int((1 - share) * new_height) - height
            spare = max(0, new_width - width)
            left = int(random.uniform(0, spare)) if name == "train" else int(spare / 2)
            flip = bool(random.choice([0, 1])) if name == "train" else False
            turn = random.uniform(*data["rot"]) if name == "train" else 0
            draws.append((resize, (new_width, new_height), (left, top, left + width, top + height), flip, turn))

            image = source.resize((new_width, new_height)).crop((left, top, left + width, top + height))
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image
            images.append(np.asarray(image.rotate(turn)))
            rotation, shift = resize * np.eye(2), -np.array([left, top])
            if flip:
                mirror = np.diag([-1, 1])
                rotation, shift = mirror @ rotation, mirror @ shift + [width, 0]
            c, s, middle = np.cos(np.radians(turn)), np.sin(np.radians(turn)), np.array([width, height]) / 2
            about = np.array([[c, s], [-s, c]])
            posts.append((about @ rotation, about @ shift + middle - about @ middle))
        for key, values in zip(("resize", "resize_dims_wh", "crop_xyxy", "flip", "rotate_deg"), zip(*draws)):
            arrays[f"image/{name}_{key}"] = np.array(values)
        rotations, shifts = zip(*posts)
        arrays[f"image/{name}_post_rot"][:, :2, :2] = rotations
        arrays[f"image/{name}_post_tran"][:, :2] = shifts
        arrays[f"image/{name}_images"] = np.stack(images)[arrays[f"image/{name}_image_index"]]
    arrays = {k: v for k, v in arrays.items() if "normalised" not in k and not k.startswith("sequence/")}
    assert arrays["image/test_crop_xyxy"][0, 1] == int(0.85 * int(900 * 0.46)) - 256
    found = statuses(tmp_path, capsys, arrays | {"cfg": np.array(json.dumps(config | {"data_config": data}))})
    found = {output: status for output, status in found.items() if output.startswith("image/")}
    assert set(found.values()) == {"OK"}
    assert len(found) == 17


def test_a_setting_that_nobody_knows_fails(tmp_path, capsys):
    arrays = stored("bevdet_backbone")
    config = json.loads(str(arrays["cfg"]))
    config["neck"]["dilation"] = 2
    np.savez(tmp_path / "other.npz", **arrays | {"cfg": np.array(json.dumps(config))})
    assert conformance.main([str(tmp_path)]) == 1
    assert "nothing here knows what neck.dilation means" in capsys.readouterr().out


# --- files of our own -------------------------------------------------------------------------------------------------


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
