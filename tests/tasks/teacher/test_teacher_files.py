"""Files of LiDAR weights that are not what they seem, and public configs that say what shapes do not."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common.errors import UserError
from dataroot.points import load_points
from in_parts import run_whole
from models.lidar.checkpoint import MIT, MMDET3D
from models.lidar.detector import build_detector as build
from models.lidar.detector import voxel_batch
from models.public.bevfusion import read_lidar
from public_configs import GEOMIM, MIT_LIDAR, MM_LIDAR, changed
from storage.bev import BevReader
from tasks.teacher import teacher
from tasks.teacher.config import LidarConfig, TeacherConfig
from tasks.teacher.network import FITTED, build_detector, fit_metadata

# What the small public configs say, in ours.
LIDAR = LidarConfig(
    range=(-8, -6.4, -4, 8, 6.4, 4),
    voxel_size=(0.2, 0.2, 0.25),
    max_voxels=16000,
    widths=(4, 6, 8, 8),
    out_width=8,
)


@pytest.fixture
def files(tmp_path):
    """A public detector's weights and config: `files(config)` gives both paths, and the detector."""

    def written(config: dict, layout=MIT, name: str = "public"):
        torch.manual_seed(3)
        detector = build(read_lidar(config)).eval()
        detector.encoder.conv_input[1].running_var.fill_(1e6)  # so that features of random weights fit float16
        torch.save({layout.to_file(n): t for n, t in detector.state_dict().items()}, tmp_path / f"{name}.pth")
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
        return str(tmp_path / f"{name}.pth"), str(tmp_path / f"{name}.json"), detector

    return written


def teach(world, folder, weights: str, public_config: str | None = None, lidar: LidarConfig = LIDAR, **fields):
    config = TeacherConfig(lidar=lidar, weights=weights, public_config=public_config, workers=1, **fields)
    out = folder("out")
    return out, run_whole(teacher, config, world.inputs, out)


def test_what_no_shape_shows_is_taken_from_the_public_config(world, folder, files):
    """Another eps in the encoder: the maps are those of the network that was trained, and not those without it."""
    config = changed(MIT_LIDAR, "model.encoders.lidar.backbone.norm_cfg", {"type": "BN1d", "eps": 0.5})
    weights, public, detector = files(config)
    out, _ = teach(world, folder, weights, public, min_map=0, gate_samples=2)
    reader = BevReader(out.path / "bev.zarr")
    for sample in range(6):
        points = torch.from_numpy(load_points(world.index, world.dataroot, sample, LIDAR.sweeps))
        with torch.inference_mode():
            wanted = detector.encoder(*voxel_batch([points], LIDAR.grid))[0].numpy()
        np.testing.assert_array_equal(reader[sample], wanted.astype(np.float16))


def test_the_neck_of_a_public_detector(world, folder, files):
    """Unequal widths, with and without the config that says so."""
    weights, public, detector = files(MM_LIDAR, MMDET3D)
    maps = []
    for number, named in enumerate((public, None)):
        config = TeacherConfig(lidar=LIDAR, weights=weights, public_config=named, output="neck", encoding="dense",
                               gate_samples=0, workers=1)  # fmt: skip
        run_whole(teacher, config, world.inputs, out := folder(f"neck{number}"))
        maps.append(BevReader(out.path / "bev.zarr"))
    assert maps[0].shape == (16, 10, 8)
    points = torch.from_numpy(load_points(world.index, world.dataroot, 3, LIDAR.sweeps))
    with torch.inference_mode():
        wanted = detector.bev_backbone(detector.encoder(*voxel_batch([points], LIDAR.grid)))[0].numpy()
    for reader in maps:
        np.testing.assert_array_equal(reader[3], wanted.astype(np.float16))


@pytest.mark.parametrize(
    ("ours", "place", "value", "sentence"),
    [
        (
            {"range": (-8, -6.4, -4, 8, 6.4, 5)},
            None,
            None,
            r"says range = \(-8\.0, .*4\.0\), and lidar\.range is .*5\.0\)",
        ),
        ({"sweeps": 5}, None, None, "says sweeps = 9, and lidar.sweeps is 5; set it so"),
        ({"max_voxels": 160_000}, None, None, "says max_voxels = 16000, and lidar.max_voxels is 160000"),
        ({"widths": (4, 6, 8, 10)}, None, None, r"says widths = \(4, 6, 8, 8\), and lidar\.widths"),
        ({"blocks": 1}, None, None, "says blocks = 2, and lidar.blocks is 1"),
        ({}, "model.encoders.lidar.backbone.in_channels", 4, "in_channels is 4: only 5 numbers a point"),
        ({}, "test_pipeline.1.remove_close", False, r"test_pipeline\[1\]\.remove_close is False: only True"),
        ({}, "model.decoder.neck.dilation", 2, "nothing here knows what model.decoder.neck.dilation means"),
    ],
)
def test_a_public_config_that_contradicts_ours_is_refused(world, folder, files, ours, place, value, sentence):
    weights, public, _ = files(MIT_LIDAR)
    if place:
        (path := folder("other").path / "p.json").write_text(json.dumps(changed(MIT_LIDAR, place, value)))
        public = str(path)
    lidar = LidarConfig.model_validate(LIDAR.model_dump() | ours)
    with pytest.raises(UserError, match=rf"\.json: .*{sentence}"):
        teach(world, folder, weights, public, lidar)


def test_weights_of_another_network_than_their_config(world, folder, files):
    _, public, _ = files(MIT_LIDAR)
    other = changed(changed(MIT_LIDAR, "model.decoder.neck.out_channels", [8, 8]), "model.decoder.neck.norm_cfg")
    weights, _, _ = files(other, name="other")
    with pytest.raises(
        UserError, match=r"other\.pth: does not fit .*public\.json: neck_widths is \(8, 8\) in the file, \(6"
    ):
        teach(world, folder, weights, public)


def test_a_head_under_another_name_is_not_passed_over(world, folder, files, tmp_path, capsys):
    """Before, `encoder alone serves; 87 other tensors are ignored`, and no gate."""
    weights, _, _ = files(MM_LIDAR, MMDET3D)
    tensors = {n.replace("bbox_head.", "pts_bbox_head."): t for n, t in torch.load(weights).items()}
    torch.save({"state_dict": tensors}, tmp_path / "named.pth")
    count = sum(name.startswith("pts_bbox_head.") for name in tensors)
    sentence = (
        rf"named\.pth: .*{count} of its {len(tensors)} tensors are is unknown \(pts_bbox_head \({count}\)\); .*gate_sam"
    )
    with pytest.raises(UserError, match=sentence):
        teach(world, folder, str(tmp_path / "named.pth"))
    config = TeacherConfig(lidar=LIDAR, weights=str(tmp_path / "named.pth"), gate_samples=0, workers=1)
    run_whole(teacher, config, world.inputs, folder("unchecked"))
    assert f"pts_bbox_head ({count})" in capsys.readouterr().err


def test_a_gate_that_cannot_be_checked_is_said(world, folder, files, tmp_path, capsys):
    """A detector of cameras and LiDAR: its head reads the map of both."""
    weights, _, _ = files(MIT_LIDAR)
    torch.save(torch.load(weights) | {"fuser.0.weight": torch.zeros(1)}, tmp_path / "fused.pth")
    with pytest.raises(UserError, match=r"fused\.pth gives no boxes: .* so teacher\.min_map = 0\.9 cannot be measured"):
        teach(world, folder, str(tmp_path / "fused.pth"), min_map=0.9)
    said = capsys.readouterr().err
    assert "fused.pth the sparse encoder alone serves, for it is of a detector of cameras and LiDAR" in said
    _, summary = teach(world, lambda name: folder(f"again-{name}"), str(tmp_path / "fused.pth"))
    assert "there is no detection head that is known here: nothing was checked" in capsys.readouterr().err
    assert "gate" not in summary


def test_the_encoder_of_a_pretrainings_config(world, folder, files, tmp_path, capsys):
    """GeoMIM's config describes the teacher's encoder, and nothing behind it."""
    wide = changed(MIT_LIDAR, "model.encoders.lidar.backbone.output_channels", 16)
    wide = changed(wide, "model.decoder.backbone.in_channels", 16)
    weights, _, _ = files(wide)
    (tmp_path / "geomim.json").write_text(json.dumps(GEOMIM))
    lidar = LIDAR.model_copy(update={"out_width": 16})
    teach(world, folder, weights, str(tmp_path / "geomim.json"), lidar)
    said = capsys.readouterr().err
    assert "its public config has no other part of a LiDAR detector" in said
    assert "ignored: decoder (" in said


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("three blocks", None),
        ("upsample 4", None),
        ("heads", "width of 20 is no multiple of its 8 attention heads, as far as shapes tell; its public config"),
    ],
)
def test_sizes_that_our_own_config_has_no_word_for(world, folder, files, change, sentence):
    """Each was a traceback."""
    second, neck = MIT_LIDAR["model"]["decoder"]["backbone"], MIT_LIDAR["model"]["decoder"]["neck"]
    config = MIT_LIDAR
    if change == "three blocks":
        levels = {"out_channels": [8, 12, 6], "layer_nums": [1, 0, 1], "layer_strides": [1, 2, 1]}
        config = changed(config, "model.decoder.backbone", second | levels)
        levels = {"in_channels": [8, 12, 6], "out_channels": [5, 5, 6], "upsample_strides": [1, 2, 2]}
        config = changed(config, "model.decoder.neck", neck | levels)
    elif change == "upsample 4":
        config = changed(config, "model.decoder.neck.upsample_strides", [4, 8])
        for section in ("test_cfg", "bbox_coder"):
            config = changed(config, f"model.heads.object.{section}.out_size_factor", 2)
    else:
        config = changed(changed(config, "model.heads.object.hidden_channel", 20), "model.heads.object.num_heads", 4)
    weights, public, _ = files(config)
    if sentence:
        with pytest.raises(UserError, match=sentence):
            teach(world, folder, weights, min_map=0)
        teach(world, lambda name: folder(f"public-{name}"), weights, public, min_map=0, gate_samples=1)
    else:
        teach(world, folder, weights, min_map=0, gate_samples=1)


def test_a_fitted_file_keeps_its_whole_network(world, folder, small, small_fit, tmp_path):
    """What a later version would build otherwise is refused by name."""
    state, written = build_detector(small_fit).state_dict(), json.loads(fit_metadata(small_fit)[FITTED])
    assert written["network"]["encoder"]["norm"] == {"eps": 0.001, "momentum": 0.01}

    def load(text):
        save_file(state, tmp_path / "fitted.safetensors", {FITTED: text})
        config = TeacherConfig(lidar=small, weights=str(tmp_path / "fitted.safetensors"), gate_samples=0, workers=1)
        return run_whole(teacher, config, world.inputs, folder(f"out{len(list(tmp_path.glob('out*')))}"))

    assert load(json.dumps(written))["samples"] == 6
    other = json.loads(json.dumps(written))
    other["network"]["encoder"]["norm"]["eps"] = 1e-5
    for text, sentence in (
        (json.dumps(other), r"was fitted with encoder\.norm\.eps = 1e-05, and this version of geomim has"),
        ("{", "what it says of its training is damaged, or of another version"),
        ("[" * 100_000, "what it says of its training is damaged, or of another version"),
        ("[]", "what it says of its training is damaged, or of another version"),
        (json.dumps(written["config"]), "what it says of its training is damaged, or of another version"),
        (json.dumps(written | {"config": {"unknown": 1}}), "unknown field unknown"),
    ):
        with pytest.raises(UserError, match=sentence) as error:
            load(text)
        assert "\n" not in str(error.value)
