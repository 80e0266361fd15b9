"""The original's stored outputs pass, and what was changed in them, or in their settings, does not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import conformance
from dataroot.images import decode
from oracles.base import Oracle
from products import fast_products

ORACLES = Path(__file__).parents[3] / "shared" / "oracles"


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("path", sorted(ORACLES.glob("*.npz")), ids=lambda path: path.stem)
def test_the_originals_outputs(path, bf16):
    with fast_products():
        results = conformance.check_file(path, bf16)
    kind = conformance.kind_of(Oracle(path))
    assert kind.name != "unknown"
    wrong = [r.line(0) for r in results if r.status != "OK"]
    assert not wrong


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
