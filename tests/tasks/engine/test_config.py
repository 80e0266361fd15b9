from pathlib import Path

import pytest

from common.errors import UserError
from models.backbones.config import ConvNeXtConfig, ResNetConfig
from tasks.engine.config import PRESETS, PipelineConfig, load_config


def test_the_defaults_fit_together():
    config = PipelineConfig()
    assert config.teacher.lidar == config.lidar == config.fit.lidar
    assert config.pretrain.backbone == config.finetune.backbone == config.backbone


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_loads_as_a_file_and_by_name(preset):
    config = load_config(preset)
    assert load_config(None, [f"preset={preset.stem}"]).model_copy(update={"preset": config.preset}) == config


def test_a_set_value_reaches_every_stage_that_shares_it():
    config = load_config(None, ["lidar.sweeps=2", "depth.sweeps=9"])
    assert config.teacher.lidar.sweeps == config.fit.lidar.sweeps == 2
    assert config.depth.sweeps == 9


def test_a_config_survives_its_own_json():
    config = load_config(PRESETS / "demo.yaml", ["depth.sweeps=3"])
    assert PipelineConfig.model_validate(config.model_dump(mode="json")) == config


def test_another_dataroot_is_never_simulated_into(tmp_path):
    config = load_config(PRESETS / "demo.yaml", dataroot=tmp_path)
    assert config.dataroot == tmp_path
    assert config.simulate is None


MISTAKES = {
    "depth.sweep=2": "unknown field depth.sweep; did you mean depth.sweeps?",
    "dept.sweeps=2": "unknown field dept; did you mean depth?",
    "depth.sweeps=many": "depth.sweeps: .* not 'many'",
    "depth.sweeps=11": "depth.sweeps: .* less than or equal to 10, not 11",
    "depth.sweeps=.nan": "depth.sweeps",
    "pretrain.method.patch=7": "pretrain.method.patch is 7, which does not divide the teacher's BEV of 180x180",
    "pretrain.image.size=[250, 704]": "250 is not a multiple of the backbone's stride, 32",
    "lidar.voxel_size=[0.07, 0.075, 0.2]": "lidar.*range along x, 108 m, is no multiple of voxel_size 0.07 m",
    "teacher.lidar.sweeps=3": "set lidar at the top, not in fit|set lidar at the top, not in teacher",
    "preset=nothing": "there is no preset 'nothing'; there are .*demo",
    "lidar=3": "lidar",
    "ingest.sweeps=5": "lidar.sweeps is 9, but the index keeps ingest.sweeps = 5",
    "depth.sweeps=3": "pretrain.method.depth_sweeps is 9, but the cache keeps depth.sweeps = 3",
    "depth.sweeps": "write it as section.field=value",
    "=3": "write it as section.field=value",
    "depth.sweeps=[1": "is not a value in YAML",
}


@pytest.mark.parametrize("override", MISTAKES)
def test_each_mistake_has_its_sentence(override):
    with pytest.raises(UserError, match=MISTAKES[override]) as raised:
        load_config(None, [override])
    assert "\n" not in str(raised.value)
    assert "pydantic" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("depth: [1", "is not YAML"), ("- 1\n- 2", "must hold sections"), ("depth: {sweep: 1}", "did you mean")],
)
def test_each_broken_file_has_its_sentence(tmp_path, text, sentence):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence) as raised:
        load_config(file)
    assert str(file) in str(raised.value)


def test_a_missing_file():
    with pytest.raises(UserError, match=r"nowhere.yaml: cannot be read"):
        load_config(Path("nowhere.yaml"))


def test_how_a_stage_runs_is_not_what_it_computes():
    a, b = load_config(None, ["depth.workers=1"]), load_config(None, ["depth.workers=2"])
    assert a.depth.key_fields() == b.depth.key_fields()
    assert "workers" not in a.depth.key_fields()


def test_values_nested_too_deeply_are_one_sentence(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("depth: " + "[" * 20_000)
    with pytest.raises(UserError, match=r"config\.yaml: is nested too deeply") as raised:
        load_config(file)
    assert len(str(raised.value)) < 300
    for override in ("depth.sweeps=" + "[" * 20_000, ".".join("a" * 5_000) + "=1"):
        with pytest.raises(UserError, match="--set ") as raised:
            load_config(None, [override])
        assert len(str(raised.value)) < 400


def test_presets_that_lead_back_to_themselves_or_out_of_the_folder_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.engine.config.PRESETS", tmp_path / "configs")
    (tmp_path / "configs").mkdir()
    for name, below in (("own", "own"), ("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / "configs" / f"{name}.yaml").write_text(f"preset: {below}\n")
    with pytest.raises(UserError, match="preset 'own' begins with itself: own -> own"):
        load_config(None, ["preset=own"])
    with pytest.raises(UserError, match="preset 'a' begins with itself: a -> b -> c -> a"):
        load_config(tmp_path / "configs" / "c.yaml")
    (tmp_path / "outside.yaml").write_text("depth: {sweeps: 1}\n")
    with pytest.raises(UserError, match=r"there is no preset '\.\./outside'; there are a, b, c, own"):
        load_config(None, ["preset=../outside"])


SCRATCH = "finetune.init=random"


def test_a_backbone_is_chosen_by_its_name():
    plain = load_config(None, [])
    assert load_config(None, ["backbone.name=swin"]).pretrain.key_fields() == plain.pretrain.key_fields()
    assert set(plain.backbone.key_fields()) == {"embed_dim", "depths", "num_heads", "window_sizes", "pretrain_grid"}
    resnet = load_config(None, ["backbone.depth=18", "backbone.name=resnet", SCRATCH])
    assert resnet.finetune.backbone == ResNetConfig(depth=18)
    assert resnet.finetune.key_fields()["backbone"] == {"name": "resnet", "depth": 18}
    assert load_config(None, ["backbone={name: convnext, size: base}", SCRATCH]).backbone == ConvNeXtConfig(size="base")


@pytest.mark.parametrize(
    "overrides", [["backbone.depth=18", "backbone.name=resnet"], ["backbone={name: resnet, depth: 18}"]]
)
def test_another_backbone_takes_the_place_of_a_presets(overrides):
    config = load_config(None, ["preset=demo", SCRATCH, *overrides])
    assert config.backbone == ResNetConfig(depth=18)


BACKBONES = {
    "backbone.name=vit": "backbone.name: there is no 'vit'; there are 'swin', 'convnext', 'resnet'",
    "backbone.embed=3": r"unknown field backbone.embed; did you mean backbone.embed_dim\?",
    "backbone.embed_dim=three": "backbone.embed_dim: input should be a valid integer",
    "backbone={name: resnet, size: tiny}": "unknown field backbone.size",
    "backbone={name: resnet, depth: 34}": "backbone.depth: input should be 18 or 50, not 34",
    "backbone={name: resnet}": "backbone.name is resnet, and pretraining hides half of an image from a swin alone",
    "backbone.patch_size=8": "mask_cell is 32: it must be a multiple of the backbone's stride, 64",
}


@pytest.mark.parametrize("override", BACKBONES)
def test_each_mistake_with_a_backbone_has_its_sentence(override):
    with pytest.raises(UserError, match=BACKBONES[override]) as raised:
        load_config(None, [override])
    assert "\n" not in str(raised.value)
