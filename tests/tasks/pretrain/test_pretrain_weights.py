"""`pretrain.init` and the files that leave: through real files, and through an artifact with its teacher beside it."""

import json
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from batches.image_config import ImageConfig
from common.errors import UserError
from flows.export import Layout
from geomim_configs import changed as altered
from geomim_configs import geomim_config
from models.backbones.config import SwinConfig
from models.geomim.model import GeoMIM
from models.layouts import swin_to_original, without_prefix
from public_configs import GEOMIM, changed
from storage.artifact import Artifact
from storage.bev import BevAttributes, BevWriter
from storage.manifest import Recipe
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.geomim.model import build_model
from tasks.pretrain.geomim.public import check_public
from tasks.pretrain.methods.geomim import DecoderConfig
from tasks.pretrain.weights import BACKBONE_LAYOUTS, ORIGINAL, export, initialise

CONFIG = geomim_config(
    backbone={"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4), "window_sizes": (4, 4, 4, 2)},
    image={"size": (64, 96)},
    decoder={"width": 16, "num_heads": 2, "depth": 4},
    depth_bins=(1.0, 11.0, 1.0),
    context=4,
    patch=4,
)
RANGE = (-8.0, -8.0, -5.0, 8.0, 8.0, 3.0)


def built(seed: int, config: PretrainConfig = CONFIG) -> GeoMIM:
    torch.manual_seed(seed)
    return build_model(GeoMIM, config, config.method, 3, RANGE, 1.0)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def artifact(tmp_path) -> Artifact:
    return artifact_of(tmp_path, CONFIG.key_fields())


def artifact_of(tmp_path, config: dict) -> Artifact:
    """What pretraining leaves of its weights, and the teacher's store."""
    teacher = Artifact(tmp_path, "teacher", "1" * 64)
    BevWriter(teacher.path / "bev.zarr", ["a"], (3, 16, 16), BevAttributes(RANGE, (1.0, 1.0), 1)).write(
        0, np.ones((1, 3, 16, 16))
    )
    recipe = Recipe(stage="pretrain", version=1, config=config, inputs={"teacher": teacher.key})
    made = Artifact(tmp_path, "pretrain", recipe.key)
    made.begin(recipe)
    state = built(0).state_dict()
    save_file(state, made.path / "model.safetensors")
    save_file(without_prefix(state, "backbone."), made.path / "backbone.safetensors")
    made.finish(recipe, {}, 1.0, {})
    return made


def test_the_command_line_offers_what_can_be_written():
    assert set(get_args(Layout)) == {ORIGINAL}.union(*BACKBONE_LAYOUTS.values())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("layout", [*BACKBONE_LAYOUTS["swin"], ORIGINAL])
def test_what_is_written_begins_another_run(artifact, tmp_path, layout, suffix):
    out = tmp_path / f"out{suffix}"
    told = export(artifact.path, out, layout)
    assert f"tensors in {layout} layout" in told
    assert "depths (1, 1, 2, 1)" in told
    lost = {"swin": ["norm2"], "timm": ["absolute_pos_embed", "norm2"]}.get(layout, [])
    assert ("which have no place there" in told) == bool(lost)
    assert all(name in told for name in lost)

    stored, fresh, model = built(0).state_dict(), built(1).state_dict(), built(1)
    told = initialise(model, out)
    assert "pretrain.init: out" in told
    assert ("left as initialised" in told) == (layout != ORIGINAL)
    for name, value in model.state_dict().items():
        filled = layout == ORIGINAL or (name.startswith("backbone.") and name.split(".")[1] not in lost)
        assert torch.equal(value, (stored if filled else fresh)[name]), name


def test_the_original_layout_has_the_view_transforms_geometry(artifact, tmp_path):
    export(artifact.path, tmp_path / "whole.pth", ORIGINAL)
    state = torch.load(tmp_path / "whole.pth", weights_only=True)["state_dict"]
    geometry = without_prefix(state, "encoders.camera.vtransform.")
    assert geometry["dx"].tolist() == [0.5, 0.5, 20.0]
    assert geometry["bx"].tolist() == [-7.75, -7.75, 0.0]
    assert geometry["nx"].tolist() == [32, 32, 1]
    assert geometry["frustum"].shape == (10, 4, 6, 3)
    assert geometry["frustum"][2, 3, 5].tolist() == [95.0, 63.0, 3.0]

    told = export(artifact.path / "model.safetensors", tmp_path / "file.pth", ORIGINAL)
    assert "dx, bx, nx and frustum" in told  # a file does not know its teacher's grid
    assert "encoders.camera.vtransform.dx" not in torch.load(tmp_path / "file.pth", weights_only=True)["state_dict"]


def test_an_artifact_from_before_is_still_written_whole(tmp_path):
    """Its config says zoom where ours says resize, and has the method's fields among its own."""
    image = {"size": [64, 96], "zoom": [0.9, 1.2], "test_zoom": 1.0, "rotate": 5.4, "flip": True}
    before = CONFIG.key_fields() | {"image": image}
    before |= before.pop("method")
    export(artifact_of(tmp_path, before).path, tmp_path / "whole.pth", ORIGINAL)
    state = torch.load(tmp_path / "whole.pth", weights_only=True)["state_dict"]
    assert state["encoders.camera.vtransform.dx"].tolist() == [0.5, 0.5, 20.0]


def test_the_frames_that_loaders_expect(artifact, tmp_path):
    """BEVDet's configs strip `backbone.`; the original Swin's loader reads `model`."""
    export(artifact.path, tmp_path / "b.pth", "bevdet")
    names = torch.load(tmp_path / "b.pth", weights_only=True)["state_dict"]
    assert all(name.startswith("backbone.") for name in names)
    assert "backbone.stages.0.blocks.0.attn.w_msa.relative_position_index" in names
    export(artifact.path, tmp_path / "s.pth", "swin")
    assert "layers.0.blocks.0.attn.qkv.weight" in torch.load(tmp_path / "s.pth", weights_only=True)["model"]


def test_our_own_model_begins_another_run_whole(artifact):
    model = built(1)
    told = initialise(model, artifact.path / "model.safetensors")
    assert same(model.state_dict(), built(0).state_dict())
    assert "geomim layout" in told
    assert "left" not in told


def test_larger_windows_are_said(artifact):
    backbone = CONFIG.backbone.model_copy(update={"window_sizes": (8, 8, 8, 4), "pretrain_grid": 28})
    told = initialise(
        built(1, CONFIG.model_copy(update={"backbone": backbone})), artifact.path / "backbone.safetensors"
    )
    assert "bias tables 7x7 to 15x15 (4), bias tables 3x3 to 7x7" in told
    assert "position embedding 56x56 to 28x28" in told


# The small public GeoMIM's settings in ours; its teacher's grid is 10x8 cells of 1.6 m.
PUBLIC = altered(
    CONFIG,
    backbone=SwinConfig(
        embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_sizes=(4, 4, 4, 2), pretrain_grid=8
    ),
    decoder=DecoderConfig(width=16, num_heads=4, depth=4),
    depth_bins=(1.0, 9.0, 1.0),
    context=6,
)


def check(path, config: PretrainConfig, public: dict, reach: float = 6.4) -> None:
    path.write_text(json.dumps(public))
    model = build_model(GeoMIM, config, config.method, 16, (-8.0, -reach, -5.0, 8.0, reach, 3.0), 1.6)
    checked = altered(config, public_config=str(path))
    check_public(checked, checked.method, model)


def test_a_public_config_that_says_the_same(tmp_path):
    check(tmp_path / "public.json", PUBLIC, GEOMIM)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"decoder": DecoderConfig(width=16, num_heads=2, depth=4)}, r"decoder\.num_heads = 4, and the config says 2"),
        ({"decoder": DecoderConfig(width=16, num_heads=4, depth=8)}, r"decoder\.depth = 4, and the config says 8"),
        (
            {"decoder": DecoderConfig(width=16, num_heads=4, depth=4, cross_view=False)},
            r"decoder\.cross_view = True, and the config says False",
        ),
        (
            {"decoder": DecoderConfig(width=16, num_heads=4, depth=4, geometry_branch=False)},
            r"decoder\.geometry_branch = True, and the config says False",
        ),
        (
            {"decoder": DecoderConfig(width=16, num_heads=4, depth=4, camera_aware=False)},
            r"decoder\.camera_aware = True, and the config says False",
        ),
        ({"image": ImageConfig(size=(64, 128))}, r"image\.size = \(64, 96\), and the config says \(64, 128\)"),
        ({"context": 8}, "context = 6, and the config says 8"),
        ({"height": (-5.0, 5.0)}, r"height = \(-10, 10\), and the config says \(-5\.0, 5\.0\)"),
        (
            {"splat_ratio": 1},
            "splats into x .* by 0.8 m, and the teacher's grid with pretrain.method.splat_ratio 1 .* by 1.6 m",
        ),
    ],
    ids=str,
)
def test_a_public_config_that_contradicts_ours_is_refused(tmp_path, fields, sentence):
    with pytest.raises(UserError, match=rf"public\.json: (says pretrain\.(method\.)?)?{sentence}"):
        check(tmp_path / "public.json", altered(PUBLIC, **fields), GEOMIM)


def test_a_public_config_of_another_grid_or_of_something_else(tmp_path):
    with pytest.raises(UserError, match=r"y \(-6\.4, 6\.4\) by 0\.8 m, and the teacher's grid .* y \(-8\.0, 8\.0\)"):
        check(tmp_path / "public.json", PUBLIC, GEOMIM, reach=8.0)
    with pytest.raises(UserError, match=r"nothing here knows what model\.encoders\.camera\.neck means"):
        check(tmp_path / "public.json", PUBLIC, changed(GEOMIM, "model.encoders.camera.neck", {}))
    with pytest.raises(ValidationError, match=r"public_config describes the GeoMIM in pretrain\.init"):
        geomim_config(public_config="a.yaml")


def test_what_is_wrong_is_said_in_a_sentence(artifact, tmp_path):
    wider = built(0, altered(CONFIG, context=5))
    with pytest.raises(
        UserError, match=r"pretrain\.init: .*model\.safetensors: does not fit.*view_transform.*geomim export"
    ):
        initialise(wider, artifact.path / "model.safetensors")
    with pytest.raises(UserError, match=r"none\.pth: there is no such checkpoint"):
        initialise(wider, tmp_path / "none.pth")

    imagenet = swin_to_original(built(0).backbone.state_dict())
    del imagenet["absolute_pos_embed"]
    torch.save({"model": imagenet}, tmp_path / "imagenet.pth")
    three = {n: t for n, t in load_file(artifact.path / "backbone.safetensors").items() if "stages.3" not in n}
    save_file(three, tmp_path / "three.safetensors")
    for source, out, layout, sentence in (
        (artifact.path, "out.bin", "mmdet", r"out\.bin: the name must end in"),
        (artifact.path, "imagenet.pth", "mmdet", r"imagenet\.pth: exists"),
        (artifact.root / "teacher", "x.pth", "mmdet", r"teacher: holds no backbone\.safetensors"),
        (tmp_path / "none", "x.pth", "mmdet", "none: there is no such checkpoint"),
        (artifact.path / "backbone.safetensors", "x.pth", "original", "a backbone alone"),
        (tmp_path / "imagenet.pth", "x.pth", "timm", r"no backbone like GeoMIM's: backbone\.absolute_pos_embed"),
        (tmp_path / "three.safetensors", "x.pth", "timm", "no backbone like GeoMIM's: depths"),
        (artifact.path, "manifest.json/x.pth", "mmdet", "x.pth: cannot be written"),
    ):
        with pytest.raises(UserError, match=sentence):
            export(source, (artifact.path if "/" in out else tmp_path) / out, layout)
    assert not (tmp_path / "x.pth").exists()
