"""What gives a detector's weights their meaning is kept beside them, and another meaning is refused by name."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from common.errors import UserError
from models.bevdet.layout import bevdet_to_public
from models.public.bevdet import read_bevdet as read_config
from public_configs import BEVDET4D, changed
from tasks.engine.stage import Inputs
from tasks.finetune.config import EvaluateConfig, FinetuneConfig
from tasks.finetune.meaning import BEFORE, DETECTOR, fields_of
from tasks.finetune.network import build_detector, build_public, load_detector, save_detector

# The small public config's detector in our fields.
SAME = {
    "backbone": {
        "embed_dim": 8,
        "depths": (1, 1, 1, 1),
        "num_heads": (1, 1, 2, 2),
        "window_sizes": (4, 4, 4, 2),
        "pretrain_grid": 8,
    },
    "image": {"size": (64, 96)},
    "view": {"frames": 2, "channels": "bgr", "key_ego": "camera", "truncate_cells": True},
    "bev_range": 8.0,
    "bev_cell": 1.0,
    "depth_bins": (1.0, 9.0, 1.0),
    "image_width": 8,
    "context": 4,
    "bev_widths": (8, 8, 8),
    "bev_width": 8,
    "head_width": 4,
    "depth_weight": 0.0,
}


@pytest.fixture
def written(world, tmp_path):
    """A file of a detector's weights, and its metadata."""
    save_detector(build_detector(world.config), file := tmp_path / "ours.safetensors", world.config)
    with safe_open(file, "pt") as opened:
        return file, opened.metadata()


def loaded(world, file, **fields) -> str:
    config = world.configured(**fields)
    return load_detector(build_detector(config), file, config)


def test_a_file_is_of_its_own_config(world, written):
    told = loaded(world, written[0], velocity_weight=0.3, drop_path=0.0, steps=9)
    assert told.startswith("ours.safetensors, geomim layout\n  filled: backbone (")
    assert "not in the file" not in told


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"view": {"key_ego": "camera"}}, r"view\.key_ego = lidar, not camera"),
        ({"view": {"truncate_cells": True}}, r"view\.truncate_cells = False, not True"),
        ({"view": {"channels": "bgr"}}, r"view\.channels = rgb, not bgr"),
        ({"view": {"depth_spacing": "log"}}, r"view\.depth_spacing = even, not log"),
        ({"image": {"size": (64, 160)}}, r"image\.size = \[64, 128\], not \[64, 160\]"),
        ({"image": {"size": (64, 128), "crop_h": (0.0, 0.2)}}, r"image\.crop_h = \[0\.0, 0\.0\], not \[0\.0, 0\.2\]"),
        ({"bev_range": 25.6, "bev_cell": 1.6}, r"bev_range = 51\.2, not 25\.6"),
        ({"height": (-4.0, 4.0)}, r"height = \[-5\.0, 3\.0\], not \[-4\.0, 4\.0\]"),
        ({"depth_bins": (2.0, 61.0, 3.0)}, r"depth_bins = "),
        ({"class_groups": "six"}, "class_groups = one, not six"),
    ],
    ids=str,
)
def test_another_meaning_is_refused_by_name(world, written, fields, sentence):
    sentence = rf"ours\.safetensors: was trained with finetune\.{sentence}.*; set it so"
    with pytest.raises(UserError, match=sentence) as error:
        loaded(world, written[0], **fields)
    assert "\n" not in str(error.value)


def test_the_test_time_zoom_is_the_evaluations_own(world, written):
    """Of a finetune artifact: its weights do not depend on it, so that another one trains nothing. Of a file that comes
    from elsewhere it is part of the meaning, and the sentence does not say that it was trained so."""
    zoomed = {"size": (64, 128), "resize_test": 0.1}
    sentence = r"ours\.safetensors: its own evaluation is at finetune\.image\.resize_test = 0\.0, not 0\.1; set it so"
    with pytest.raises(UserError, match=sentence):
        loaded(world, written[0], image=zoomed)
    config = world.configured(image=zoomed)
    assert "filled" in load_detector(build_detector(config), written[0], config, zoomed=True)


def changed_file(written, key: str, text: str, tmp_path):
    with safe_open(written[0], "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    save_file(tensors, other := tmp_path / "other.safetensors", {key: text})
    return other


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("network.detector.stereo_bias", 3.0, r"detector\.stereo_bias = 3\.0, and this version of geomim has 5\.0"),
        ("network.detector.pre_blocks", 1, r"detector\.pre_blocks = 1"),
        ("network.head.norm.eps", 1e-3, r"head\.norm\.eps = 0\.001"),
        ("network.head.branch_width", 32, r"head\.branch_width = 32"),
        ("network.pixels.mean.0", 0.0, r"pixels\.mean = \[0\.0"),
        ("network.classes.detection.0", "tram", r"classes\.detection = \['tram'"),
        ("fields.view.new", 1, r"finetune\.view\.new, which this version of geomim does not know"),
    ],
)
def test_what_no_field_says_is_kept_too(world, written, tmp_path, place, value, sentence):
    kept = json.loads(written[1][DETECTOR])
    section = kept
    part, *way = place.split(".")
    if part == "fields":
        kept["fields"][".".join(way)] = value
    else:
        *way, last = ["network", *(int(key) if key.isdigit() else key for key in way)]
        for key in way:
            section = section[key]
        section[last] = value
    with pytest.raises(UserError, match=f"was trained with {sentence}"):
        loaded(world, changed_file(written, DETECTOR, json.dumps(kept), tmp_path))


def test_how_boxes_are_kept_and_learnt_may_differ(world, written, tmp_path):
    kept = json.loads(written[1][DETECTOR])
    kept["network"]["head"] |= {"score_threshold": 0.9, "rules": [], "code_weights": [0] * 10, "slots": 7}
    assert "filled" in loaded(world, changed_file(written, DETECTOR, json.dumps(kept), tmp_path))


def test_a_file_from_before_says_what_it_cannot(world, written, tmp_path):
    """Seven fields in its metadata: those are checked, and the others are named."""
    now = fields_of(world.config)
    seven = ("task", "view.channels", "view.depth_spacing", "bev_range", "bev_cell", "height", "depth_bins")
    file = changed_file(written, BEFORE, json.dumps({name: now[name] for name in seven}), tmp_path)
    line = loaded(world, file).splitlines()[-1]
    assert line.startswith("  not in the file, and so taken from the config: backbone.name, backbone.embed_dim, ")
    assert "view.key_ego" in line
    assert set(line.partition(": ")[2].split(", ")) == now.keys() - set(seven)
    with pytest.raises(UserError, match=r"was trained with finetune\.bev_cell = 3\.2, not 1\.6"):
        loaded(world, file, bev_cell=1.6)


@pytest.mark.parametrize(
    "text",
    ["{", "3", "[]", "[" * 100_000, '{"fields": 3, "network": {}}', '{"network": {}}'],
    ids=["cut", "number", "list", "nested", "fields", "no fields"],
)
def test_damaged_metadata_is_a_sentence(world, written, tmp_path, text):
    with pytest.raises(UserError, match=r"other\.safetensors: .*damaged; take another copy") as error:
        loaded(world, changed_file(written, DETECTOR, text, tmp_path))
    assert "\n" not in str(error.value)


# --- public configs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def public(world, tmp_path):
    """`public(config)`: paths of a public detector's weights and config, and the detector."""

    def made(config: dict):
        torch.manual_seed(0)
        detector = read_config(config).build().eval()
        torch.save({"state_dict": bevdet_to_public(detector.state_dict())}, tmp_path / "epoch_20.pth")
        (tmp_path / "public.json").write_text(json.dumps(config))
        return str(tmp_path / "epoch_20.pth"), str(tmp_path / "public.json"), detector

    return made


def configured(world, **fields) -> FinetuneConfig:
    rest = {name: getattr(world.config, name) for name in ("threads", "device", "seconds_between_saves")}
    return FinetuneConfig.model_validate(copy.deepcopy(SAME) | rest | fields)


def test_a_released_detector_is_evaluated_as_its_config_says(world, public, tmp_path):
    """Limits, groups and branches that our config has no word for; without the public config it is refused."""
    config = changed(BEVDET4D, "model.pts_bbox_head.separate_head.head_conv", 5)
    config = changed(config, "model.pts_bbox_head.bbox_coder.post_center_range", [-3, -3, -5, 3, 3, 5])
    config = changed(config, "model.img_bev_encoder_backbone.num_layer", [1, 1, 1])
    weights, path, detector = public(config)
    inputs = Inputs(world.inputs.dataroot, world.inputs.version, {"ingest": world.inputs["ingest"]})
    ours, evaluate = configured(world), EvaluateConfig(checkpoint=weights, public_config=path)
    fields = {name: getattr(ours, name) for name in FinetuneConfig.model_fields}
    folder, summary = world.evaluate(tmp_path, None, inputs, settings=evaluate, **fields)
    assert set(summary) == {"mAP", "NDS"}
    coverage = (folder / "coverage.txt").read_text()
    assert "filled" in coverage
    assert "taken from the config" not in coverage  # it was compared
    made = build_public(ours, evaluate)
    load_detector(made, tmp_path / "epoch_20.pth", ours)
    assert (made.head.spec, made.spec) == (detector.head.spec, detector.spec)
    assert all(torch.equal(made.state_dict()[name], tensor) for name, tensor in detector.state_dict().items())
    with pytest.raises(UserError, match="is no detector of this config"):
        load_detector(build_detector(ours), tmp_path / "epoch_20.pth", ours)


@pytest.mark.parametrize(
    ("view", "line"),
    [
        ({"frames": 2}, "view.channels rgb, view.key_ego lidar, cells by floor, image.resize_test 0"),
        (SAME["view"], "view.channels bgr, view.key_ego camera, cells towards the origin, image.resize_test 0"),
    ],
)  # fmt: skip
def test_a_released_file_alone_says_what_was_taken_from_the_config(world, tmp_path, view, line):
    """Red and blue, the ego's time and the rounding load in silence whatever they are: so the report names them."""
    detector = build_detector(config := configured(world, view=view))
    torch.save({"state_dict": bevdet_to_public(detector.state_dict())}, file := tmp_path / "epoch_20.pth")
    told = load_detector(detector, file, config).splitlines()[-1]
    assert told.startswith(f"  not in the file, and so taken from the config: {line}")
    assert "configs/released has the published ones, and --public-config would check them" in told


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"bev_cell": 2.0}, r"bev_cell = 1\.0, and the config says 2\.0; set it so"),
        ({"bev_range": 16.0}, r"bev_range = 8, and the config says 16\.0"),
        ({"image": {"size": (64, 128)}}, r"image\.size = \[64, 96\], and the config says \[64, 128\]"),
        ({"image": {"size": (64, 96), "crop_h": (0, 0.1)}}, r"image\.crop_h = \[0\.0, 0\.0\]"),
        ({"image": {"size": (64, 96), "resize_test": 0.1}}, r"image\.resize_test = 0\.0"),
        ({"view": {"frames": 2}}, r"view\.channels = bgr, and the config says rgb"),
        ({"view": SAME["view"] | {"key_ego": "lidar"}}, r"view\.key_ego = camera, and the config says lidar"),
        ({"view": SAME["view"] | {"truncate_cells": False}}, r"view\.truncate_cells = True"),
        ({"view": SAME["view"] | {"frames": 1}}, r"view\.frames = 2"),
        ({"backbone": SAME["backbone"] | {"window_sizes": (8, 4, 4, 2)}}, r"backbone\.window_sizes = \[4, 4, 4, 2\]"),
        ({"depth_bins": (1.0, 9.0, 2.0)}, "depth_bins = "),
    ],
    ids=str,
)
def test_a_public_config_that_contradicts_ours_is_refused(world, public, fields, sentence):
    weights, path, _ = public(BEVDET4D)
    with pytest.raises(UserError, match=rf"public\.json: says finetune\.{sentence}"):
        build_public(configured(world, **fields), EvaluateConfig(checkpoint=weights, public_config=path))


def test_what_our_config_has_no_word_for(world, public):
    """More stages of the BEV encoder are the public config's own; more frames cannot be loaded. Neither can be set."""
    encoder = {"num_channels": [8, 8, 8, 8], "num_layer": [1, 1, 1, 1], "stride": [2, 2, 2, 1]}
    place = "model.img_bev_encoder_backbone"
    weights, path, detector = public(changed(BEVDET4D, place, BEVDET4D["model"]["img_bev_encoder_backbone"] | encoder))
    evaluate = EvaluateConfig(checkpoint=weights, public_config=path)
    assert build_public(configured(world), evaluate).spec == detector.spec
    config = changed(changed(BEVDET4D, "model.num_adj", 2), f"{place}.numC_input", 12)
    weights, path, _ = public(changed(config, "multi_adj_frame_id_cfg", [1, 3, 1]))
    with pytest.raises(UserError, match=r"public\.json: model\.num_adj is 2: only 1, the frame before, can be loaded"):
        build_public(configured(world), EvaluateConfig(checkpoint=weights, public_config=path))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"score_threshold": 0.2}, r"score_threshold = 0\.1, and the config says 0\.2"),
        ({"nms": "circle"}, "nms = rotated, and the config says circle"),
    ],
    ids=str,
)
def test_a_public_config_that_keeps_other_boxes_is_refused(world, public, fields, sentence):
    weights, path, _ = public(BEVDET4D)
    with pytest.raises(UserError, match=rf"public\.json: says evaluate\.{sentence}"):
        build_public(configured(world), EvaluateConfig(checkpoint=weights, public_config=path, **fields))


def test_a_public_config_of_something_else(world, public):
    weights, path, _ = public(BEVDET4D)
    Path(path).write_text(json.dumps(changed(BEVDET4D, "model.img_neck.dropout", 0.1)))
    with pytest.raises(UserError, match=r"public\.json: nothing here knows what model\.img_neck\.dropout means"):
        build_public(configured(world), EvaluateConfig(checkpoint=weights, public_config=path))
    with pytest.raises(ValueError, match=r"public_config describes the detector in evaluate\.checkpoint"):
        EvaluateConfig(public_config=path)
