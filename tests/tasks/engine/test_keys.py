"""Which artifacts get another key by which field of the config: a table of every one."""

import json
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from dataroot.names import TABLES
from tasks.engine.config import SHARED, PipelineConfig, load_config
from tasks.engine.plan import make_plan
from tasks.pretrain.methods import CONFIGS

SCRATCH = {"finetune-baseline", "evaluate-baseline"}
NONE: set[str] = set()
EVALUATE = {"evaluate", "evaluate-baseline"}
FINETUNE = {"finetune", "evaluate"} | SCRATCH
PRETRAIN = {"pretrain", "finetune", "evaluate"}
DEPTH = {"depth"} | PRETRAIN
TEACHER = {"teacher"} | PRETRAIN
FIT = {"fit"} | TEACHER
ALL = {"ingest"} | FIT | DEPTH | SCRATCH

RUNTIME = "threads device seconds_between_saves skip_samples"
TRAINING = f"ranks checkpointing compile loaders {RUNTIME}"

# Section -> the keys that its fields move, and those fields. Every field of the config stands here once.
MOVES: dict[str, list[tuple[set[str], str]]] = {
    "": [(NONE, "preset dataroot"), (ALL, "version")],
    "cluster": [(NONE, "runner address workers")],
    "simulate": [
        (NONE, "seed scenes keyframes image_scale camera_sweeps lidar_rate lidar_reach density occupancy workers")
    ],
    "lidar": [(FIT, "range voxel_size max_points max_voxels sweeps widths out_width blocks")],
    "backbone": [
        (PRETRAIN | SCRATCH, "embed_dim depths num_heads window_sizes pretrain_grid patch_size mlp_ratio"),
        (NONE, "name"),  # its default, written out; for another network see below
    ],
    "ingest": [
        (ALL, "sweeps lidar_columns classes leave_out scenes cameras lidar"),
        ({"ingest"}, "frames"),  # which no stage of this config reads
        (NONE, "deep read_gigabytes threads"),
    ],
    "fit": [
        (FIT, "backbone_widths backbone_layers neck_width upsample head class_groups head_width queries"),
        (
            FIT,
            "gaussian_radius norm_momentum min_lidar_points epochs batch_size rate warmup weight_decay clip flip paste",
        ),
        (FIT, "rotation scale seed accumulate sampling precision ema"),
        (NONE, f"ranks loaders {RUNTIME}"),
    ],
    "teacher": [
        (TEACHER, "weights mmdet3d public_config output flips encoding seed"),
        ({"teacher"}, "detections"),  # nobody trains on its boxes
        (NONE, "part_size gate_samples min_map workers threads device"),
    ],
    "depth": [(DEPTH, "sweeps min_depth margin"), (NONE, "part workers")],
    "pretrain": [
        (PRETRAIN, "batch_size accumulate sampling precision ema seed steps rate backbone_rate weight_decay"),
        (PRETRAIN | SCRATCH, "init"),  # where the baseline begins, too
        (PRETRAIN, "warmup clip_norm"),
        (NONE, f"evaluate_every held_out {TRAINING}"),
    ],
    "pretrain.method": [
        (PRETRAIN, "name public_config mask_ratio mask_cell mask_shared depth_bins depth_sweeps reconstruction_weight"),
        (PRETRAIN, "depth_weight context height splat_ratio patch bev_flip"),
        (NONE, "probe_samples"),
    ],
    "pretrain.image": [(PRETRAIN, "size resize crop_h rot flip"), (NONE, "resize_test")],
    "pretrain.method.decoder": [(PRETRAIN, "width num_heads depth cross_view geometry_branch camera_aware")],
    "finetune": [
        (FINETUNE, "batch_size accumulate sampling precision ema seed task bev_range bev_cell height depth_bins"),
        (FINETUNE, "image_width context bev_widths bev_width class_groups head_width label_fraction velocity_weight"),
        (FINETUNE, "velocity_loss gaussian_radius min_lidar_points depth_weight bev_rotation bev_scale bev_flip steps"),
        (FINETUNE, "rate final_rate layer_decay backbone_rate warmup weight_decay drop_path norm_momentum clip_norm"),
        ({"finetune", "evaluate"}, "init"),
        (NONE, f"baseline {TRAINING}"),
    ],
    "finetune.image": [(FINETUNE, "size resize crop_h rot flip"), (EVALUATE, "resize_test")],
    "finetune.view": [
        (FINETUNE, "frames previous_from camera_aware aspp_width stereo depth_spacing channels key_ego truncate_cells")
    ],
    "evaluate": [
        (EVALUATE, "score_threshold nms nms_radius pictures"),
        ({"evaluate"}, "checkpoint public_config"),  # then nothing else is wanted
    ],
    "experiment": [(NONE, "arms seeds pretrain_seeds fractions")],
    # Of arms that render; what the same fields of `pretrain.method` move, see below.
    "experiment.mim4d": [(NONE, "name frames mask_ratio mask_cell depth_bins width context probe_samples")],
    "experiment.mim4d.volume": [(NONE, "range cell heights channels")],
    "experiment.mim4d.temporal": [(NONE, "width reduction short_heads long_heads layers short_ffn long_ffn")],
    "experiment.mim4d.render": [(NONE, "rays samples importance rgb_weight depth_weight")],
}

# Values that fit the rest of the config, with what else has to be set for them.
VALUES: dict[str, dict[str, Any]] = {
    "version": {"version": "v1.0-trainval"},
    "lidar.range": {"lidar": {"range": [-50.4, -54.0, -5.0, 57.6, 54.0, 3.0]}},
    "lidar.voxel_size": {"lidar": {"voxel_size": [0.075, 0.075, 0.1]}},
    "lidar.widths": {"lidar": {"widths": [16, 32, 64, 64]}},
    "backbone.name": {"backbone": {"name": "swin"}},
    "backbone.depths": {"backbone": {"depths": [2, 2, 6, 2]}},
    "backbone.num_heads": {"backbone": {"num_heads": [4, 8, 16, 16]}},
    "backbone.window_sizes": {"backbone": {"window_sizes": [16, 16, 8, 8]}},
    "cluster.address": {"cluster": {"address": "tcp://head:8786"}},
    "ingest.classes": {"ingest": {"classes": {"tram": "bus"}}},
    "ingest.scenes": {"ingest": {"scenes": "available"}},
    "ingest.sweeps": {"ingest": {"sweeps": 9}, "depth": {"sweeps": 9}},
    "depth.sweeps": {"depth": {"sweeps": 9}},
    "fit.backbone_widths": {"fit": {"backbone_widths": [64, 256]}},
    "fit.backbone_layers": {"fit": {"backbone_layers": [5, 3]}},
    "fit.head": {"fit": {"head": "transfusion"}},
    "teacher.weights": {"teacher": {"weights": "random"}},
    "teacher.mmdet3d": {"teacher": {"weights": "random", "mmdet3d": "FILE"}},
    "teacher.public_config": {"teacher": {"weights": "FILE", "public_config": "FILE"}},
    "teacher.output": {"teacher": {"output": "neck"}},
    "pretrain.init": {"pretrain": {"init": "FILE"}},
    "pretrain.method.public_config": {"pretrain": {"init": "FILE", "method": {"public_config": "FILE"}}},
    "pretrain.method.name": {"pretrain": {"method": {"name": "pixels"}}},
    "pretrain.image.size": {"pretrain": {"image": {"size": [256, 640]}}},
    "pretrain.method.mask_ratio": {"pretrain": {"method": {"mask_ratio": 0.75}}},
    "pretrain.method.mask_cell": {"pretrain": {"method": {"mask_cell": 64}}},
    "pretrain.method.patch": {"pretrain": {"method": {"patch": 9}}},
    "pretrain.method.decoder.geometry_branch": {"pretrain": {"method": {"decoder": {"geometry_branch": False}}}},
    "finetune.task": {"finetune": {"task": "segmentation"}},
    "finetune.image.size": {"finetune": {"image": {"size": [256, 640]}}},
    "finetune.bev_range": {"finetune": {"bev_range": 57.6}},
    "finetune.bev_cell": {"finetune": {"bev_cell": 0.4}},
    "finetune.init": {"finetune": {"init": "FILE"}},
    "finetune.label_fraction": {"finetune": {"label_fraction": 0.5}},
    "finetune.bev_widths": {"finetune": {"bev_widths": [160, 320, 320]}},
    "finetune.view.previous_from": {"finetune": {"view": {"frames": 2, "previous_from": 5}}},
    "finetune.view.aspp_width": {"finetune": {"view": {"camera_aware": True, "aspp_width": 48}}},
    "finetune.view.stereo": {"finetune": {"view": {"frames": 2, "camera_aware": True, "stereo": True}}},
    "evaluate.checkpoint": {"evaluate": {"checkpoint": "FILE"}},
    "evaluate.public_config": {"evaluate": {"checkpoint": "FILE", "public_config": "FILE"}},
    "experiment.seeds": {"experiment": {"seeds": 2}},
    "experiment.arms": {"experiment": {"arms": ["scratch", "geomim", "pixels"]}},
    "experiment.mim4d.name": {"experiment": {"mim4d": {"name": "mim4d"}}},
}


def section_of(kind: Any) -> type[BaseModel] | None:
    """The model of a field that is a section."""
    models = [t for t in (kind, *get_args(kind)) if isinstance(t, type) and issubclass(t, BaseModel)]
    return models[0] if models else None


def fields(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Name -> annotation and default of every field that is no section; sections that stages share once, at the top."""
    out = {}
    for name, field in model.model_fields.items():
        place = f"{prefix}{name}"
        if section := section_of(field.annotation):
            shared = any(place == f"{stage}.{name}" for name, stages in SHARED.items() for stage in stages)
            out |= {} if shared else fields(section, f"{place}.")
        else:
            out[place] = field.annotation, field.get_default(call_default_factory=True)
    return out


def other(kind: Any, value: Any) -> Any:
    """Another value of a plain field."""
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value // 2 if value > 1 else value + 1
    if isinstance(value, float):
        return value / 2 or 0.5
    if isinstance(value, tuple):
        return [item / 2 or 0.01 for item in value] if value and isinstance(value[0], float) else ["a token"]
    if value is None or isinstance(value, str):
        return "1" if "int" in str(kind) or "float" in str(kind) else "cpu"
    raise AssertionError(f"no other value is known for {value!r}")


EXPECTED = {
    f"{section}.{name}".lstrip("."): moved
    for section, groups in MOVES.items()
    for moved, names in groups
    for name in names.split()
}
ALL_FIELDS = fields(PipelineConfig)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A dataroot of tables without rows, in two versions, and a file to name."""
    folder = tmp_path_factory.mktemp("keys")
    for version in ("v1.0-mini", "v1.0-trainval"):
        (folder / "data" / version).mkdir(parents=True)
        for table in TABLES:
            (folder / "data" / version / f"{table}.json").write_text(json.dumps([]))
    (folder / "file").write_bytes(b"a file")
    return folder


def keys(place, values: dict[str, Any]) -> dict[str, str]:
    text = json.dumps(values).replace("FILE", str(place / "file"))
    (place / "config.yaml").write_text(text)
    config = load_config(place / "config.yaml", dataroot=None if "dataroot" in values else place / "data")
    return {planned.name: planned.step.artifact.key for planned in make_plan(config, place / "root")}


def test_every_field_is_in_the_table_once():
    assert sorted(EXPECTED) == sorted(ALL_FIELDS)
    assert sum(len(names.split()) for groups in MOVES.values() for _, names in groups) == len(EXPECTED)


@pytest.mark.parametrize("name", sorted(ALL_FIELDS.keys() - {"preset", "dataroot"}))
def test_what_a_field_moves(place, name):
    *way, last = name.split(".")
    values = VALUES.get(name) or _nested(way, {last: other(*ALL_FIELDS[name])})
    before, after = keys(place, _without(values, way, last)), keys(place, values)
    assert {node for node in after if before.get(node) != after[node]} == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(fields(CONFIGS["mim4d"]).keys() - {"name"}))
def test_what_a_field_of_mim4d_moves(place, name):
    """All but what is measured on the way: the stage's own key, and those of what stands on it."""
    *way, last = name.split(".")
    annotation, default = fields(CONFIGS["mim4d"])[name]
    value = {"mask_cell": 64}.get(name, other(annotation, default))
    plain: dict[str, Any] = {"ingest": {"frames": 2}, "pretrain": {"method": {"name": "mim4d"}}}
    changed = _nested(["pretrain", "method", *way], {last: value})
    changed["pretrain"]["method"]["name"] = "mim4d"
    before, after = keys(place, plain), keys(place, {"ingest": {"frames": 2}} | changed)
    assert "teacher" not in before
    assert {node for node in after if before[node] != after[node]} == (NONE if last == "probe_samples" else PRETRAIN)


def test_neither_a_preset_nor_a_folder_is_in_a_key(place):
    """Presets stand for their values, and a dataroot for what is in it."""
    plain = keys(place, {"pretrain": {"precision": "bf16"}})
    (place / "elsewhere").symlink_to(place / "data")
    assert keys(place, {"pretrain": {"precision": "bf16"}, "dataroot": str(place / "elsewhere")}) == plain
    preset = load_config(None, ["preset=geomim-swin-b"], place / "data")
    values = preset.model_dump(mode="json", exclude={"preset"})
    assert keys(place, values) == keys(place, {"preset": "geomim-swin-b", "dataroot": str(place / "data")})


def _nested(way: list[str], value: Any) -> Any:
    for part in reversed(way):
        value = {part: value}
    return value


def _without(values: dict[str, Any], way: list[str], last: str) -> dict[str, Any]:
    """What is set besides."""
    if way:
        return values | {way[0]: _without(values[way[0]], way[1:], last)}
    return {name: value for name, value in values.items() if name != last}
