import pytest
from pydantic import ValidationError

from common.errors import UserError
from geomim_configs import geomim_config
from tasks.engine.config import load_config
from tasks.engine.dag import build_dag
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.methods import CONFIGS


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"image": {"size": (250, 704)}}, "height of 250 is not a multiple of the backbone's stride, 32"),
        ({"image": {"size": (256, 704)}, "mask_cell": 64 * 3}, "not a multiple of mask_cell, 192"),
        ({"backbone": {"embed_dim": 30}}, r"num_heads\[0\] is 4, which does not divide the 30 channels"),
        ({"decoder": {"width": 100, "num_heads": 8}}, "num_heads is 8, which does not divide the width 100"),
        ({"depth_bins": (60.0, 1.0, 0.5)}, "nearest < farthest"),
        ({"depth_bins": (1.0, 60.0, 1e-9)}, "depth_bins, 59,000,000,000 of them, would take"),
        ({"image": {"size": (320_000, 704_000)}}, "image.size of 320,000 x 704,000 px would take"),
        ({"mask_ratio": 0.3}, "greater than or equal to 0.5"),
        (
            {"batch_size": 10**12},
            "less than or equal to 65536",
        ),
        (
            {"batch_size": 12, "accumulate": 2, "ranks": 4},
            r"batch_size is 12, which accumulate \(2\) times ranks \(4\)",
        ),
        ({"reconstruction_weight": 0, "depth_weight": 0}, "both 0: there is nothing to learn"),
        ({"patches": 18}, "Extra inputs"),
    ],
)
def test_impossible_configs_are_refused(fields, sentence):
    with pytest.raises(ValidationError, match=sentence):
        geomim_config(**fields)


def test_the_patch_divides_the_teachers_grid():
    method = PretrainConfig().method
    method.check_caches((180, 180), 10, 0)
    method.check_caches(None, 10, 0)
    with pytest.raises(ValueError, match=r"pretrain.method.patch is 18, .* 180x128 cells along y"):
        method.check_caches((180, 128), 10, 0)
    with pytest.raises(ValueError, match=r"depth_sweeps is 9, but the cache keeps depth.sweeps = 5"):
        method.check_caches((180, 180), 5, 0)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("pretrain.target=pixels", r"pretrain: target is method.name now: write method: {name: pixels}"),
        ("pretrain.target=bev", r"pretrain: target is method.name now: write method: {name: geomim}"),
        ("pretrain.decoder={width: 64}", r"pretrain: decoder is method.decoder now: write method: {name: geomim, dec"),
        (
            "pretrain.method.mask_rato=0.6",
            r"unknown field pretrain.method.mask_rato; did you mean .*mask_ratio",
        ),
        ("pretrain.method.decoder.widht=64", r"unknown field .*method.decoder.widht; did you mean .*decoder.width\?"),
        (
            "pretrain.method=mae",
            r"pretrain.method.name: there is no 'mae'; there are 'geomim', 'joint', 'mim4d', 'perspective', 'pixels'",
        ),
    ],
)
def test_one_sentence_says_what_to_write(override, sentence):
    with pytest.raises(UserError, match=f"^the config: {sentence}"):
        load_config(None, [override])


def test_a_method_is_named_or_stands_alone():
    """And takes the whole section of another's place."""
    assert load_config(None, ["pretrain.method=pixels"]).pretrain.method.name == "pixels"
    assert load_config(None, ["preset=demo", "pretrain.method.name=pixels"]).pretrain.method == CONFIGS["pixels"]()
    assert load_config(None, ["preset=demo", "pretrain.method.patch=16"]).pretrain.method.decoder.width == 64
    assert PretrainConfig(method={"patch": 9}).method == CONFIGS["geomim"](patch=9)


def test_a_method_needs_what_it_reads():
    dags = {name: build_dag(load_config(None, [f"pretrain.method={name}"])) for name in ("geomim", "pixels")}
    nodes = {name: {node.name for node in dag} for name, dag in dags.items()}
    assert nodes["geomim"] - nodes["pixels"] == {"fit", "teacher", "depth"}


def test_how_it_runs_is_not_part_of_the_key():
    how = PretrainConfig(device="cuda", threads=4, ranks=8, checkpointing="block", compile=True)
    assert how.key_fields() == PretrainConfig().key_fields()
    assert PretrainConfig(seed=1).key_fields() != PretrainConfig().key_fields()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["pretrain.method.name=mim4d"], "set ingest.frames to 2"),
        (["pretrain.method={name: mim4d, frames: 1, volume: {cell: 0.7}}"], "cell 0.7 does not divide the 108 m"),
        (["pretrain.method={name: mim4d, frames: 1, volume: {range: [1, 0, 0, 0, 1, 1]}}"], "minimum, then maximum"),
        (["pretrain.method={name: mim4d, frames: 1, mask_cell: 48}"], "multiple of the backbone's stride"),
        (["pretrain.method={name: mim4d, frames: 1, width: 20}"], "width is 20: it must be a multiple of 8"),
        (["pretrain.method={name: mim4d, frames: 1, render: {rgb_weight: 0, depth_weight: 0}}"], "nothing to learn"),
        (["pretrain.method={name: mim4d, frames: 1, temporal: {width: 12}}"], "multiple of 4 . reduction"),
        (["pretrain.method={name: mim4d, frames: 1, volume: {cell: 0.01, range: [-50, -50, -5, 50, 50, 3]}}"],
         "would take .* GB"),
        (["pretrain.method={name: mim4d, frames: 1}", "backbone.name=resnet"], "looks at hidden pixels"),
        (["pretrain.method={name: joint, mim4d: {frames: 1, context: 7}}"], "of a lift that is not there"),
    ],
)  # fmt: skip
def test_what_no_mim4d_can_be_is_refused(overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        load_config(None, overrides)


def test_unipad_needs_neither_teacher_nor_depth():
    config = load_config(None, ["pretrain.method={name: mim4d, frames: 1}", "backbone={name: convnext, size: small}"])
    assert config.pretrain.needs == ("ingest",)
    assert load_config(None, ["pretrain.method={name: joint, mim4d: {frames: 1}}"]).pretrain.needs == (
        "ingest", "teacher", "depth"
    )  # fmt: skip
