"""The pipeline's config: one frozen model of a preset, a YAML file and `--set a.b=c`, checked before anything runs."""

import difflib
from functools import reduce
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from common.errors import UserError
from common.settings import Settings, runtime
from models.backbones.build import BackboneConfig
from models.backbones.config import SwinConfig
from simulate.config import SimulateConfig
from tasks.depth.config import DepthConfig
from tasks.engine.cluster import ClusterConfig
from tasks.engine.experiment import ExperimentConfig
from tasks.finetune.config import EvaluateConfig, FinetuneConfig
from tasks.ingest.config import IngestConfig
from tasks.pretrain.config import PretrainConfig
from tasks.teacher.config import FitConfig, LidarConfig, TeacherConfig

PRESETS = Path(__file__).resolve().parents[2] / "configs"
LONGEST_VALUE = 100  # letters of a value in a sentence
LONGEST_FOR_LIBYAML = 2500  # characters
DEEPEST = 10  # dots in an override

# Sections that several stages share: written once at the top, handed to each of them.
SHARED = {"lidar": ("fit", "teacher"), "backbone": ("pretrain", "finetune")}


class PipelineConfig(Settings):
    """Everything a run needs to know. Defaults are GeoMIM's: Swin-B, 256x704, the full-size BEVFusion teacher."""

    preset: str | None = runtime(None, "A file of configs/, without .yaml, whose values stand where none are given.")
    dataroot: Path | None = runtime(None, "The folder in nuScenes format.")
    version: str = runtime("v1.0-mini", "The folder of tables in the dataroot, such as v1.0-trainval.")
    cluster: ClusterConfig | None = runtime(None, "Where the stages of a run compute, if not on this machine.")
    simulate: SimulateConfig | None = runtime(None, "Make the dataroot by simulation where it is not there.")
    lidar: LidarConfig = Field(default_factory=LidarConfig)
    backbone: BackboneConfig = Field(default_factory=SwinConfig)
    ingest: IngestConfig = Field(default_factory=IngestConfig)
    fit: FitConfig = Field(default_factory=FitConfig)
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    depth: DepthConfig = Field(default_factory=DepthConfig)
    pretrain: PretrainConfig = Field(default_factory=PretrainConfig)
    finetune: FinetuneConfig = Field(default_factory=FinetuneConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    experiment: ExperimentConfig = Field(default_factory=ExperimentConfig)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Lay the given values over the preset's, and hand the shared sections to the stages."""
        if not isinstance(values, dict):
            return values
        if values.get("preset") is not None:
            values = merged(read_preset(values["preset"]), values)
        values = dict(values)
        for shared, stages in SHARED.items():
            value = values.get(shared, {})
            value = value.model_dump() if isinstance(value, BaseModel) else value
            for stage in stages:
                section = values.get(stage) or {}
                section = section.model_dump() if isinstance(section, BaseModel) else section
                if isinstance(section, dict) and section.get(shared, value) != value:
                    raise ValueError(f"set {shared} at the top, not in {stage}: {' and '.join(stages)} share it")
                if isinstance(section, dict):
                    values[stage] = section | {shared: value}
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> "PipelineConfig":
        bev_cells = None
        if self.teacher.mmdet3d is None:  # whose grid is known when it is built
            finer = self.fit.upsample if self.teacher.output == "neck" and self.teacher.weights == "fit" else 1
            bev_cells = _scaled(self.lidar.bev_shape, finer)
        self.pretrain.method.check_caches(bev_cells, self.depth.sweeps, self.ingest.frames)
        if self.finetune.init == "pretrain" and self.evaluate.checkpoint is None:
            self.pretrain.method.check_backbone(self.backbone)
        sweeps = {"lidar.sweeps": self.lidar.sweeps, "depth.sweeps": self.depth.sweeps}
        for name, count in sweeps.items():
            if count > self.ingest.sweeps:
                raise ValueError(f"{name} is {count}, but the index keeps ingest.sweeps = {self.ingest.sweeps}")
        return self


def _scaled(shape: tuple[int, int], factor: int) -> tuple[int, int]:
    return factor * shape[0], factor * shape[1]


def read_preset(name: str) -> dict[str, Any]:
    """The values of configs/NAME.yaml, over those of its own preset. Raises ValueError where there is no such file."""
    return reduce(merged, preset_layers(name).values())


def preset_layers(name: str, above: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Preset -> the values of its file: the preset of that name and those that it begins with, the first lowest.

    above: the presets that lead here; one of them again would never end.
    """
    path = PRESETS / f"{name}.yaml"
    if not path.is_file() or not path.resolve().is_relative_to(PRESETS):
        presets = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise ValueError(f"there is no preset {name!r}; there are {presets}")
    if name in above:
        raise ValueError(f"preset {name!r} begins with itself: {' -> '.join([*above, name])}")
    values = _yaml(path.read_text()) or {}
    below = preset_layers(values["preset"], (*above, name)) if "preset" in values else {}
    return below | {name: values}


def load_config(
    file: Path | None = None,
    overrides: list[str] | None = None,
    dataroot: Path | None = None,
    version: str | None = None,
) -> PipelineConfig:
    """The config of a YAML file with `a.b=c` overrides on top. Raises UserError with one sentence for any mistake."""
    try:
        return PipelineConfig.model_validate(reduce(merged, layers(file, overrides, dataroot, version).values()))
    except ValidationError as error:
        raise UserError(f"{file or 'the config'}: {explain(error)}") from None


def layers(
    file: Path | None = None,
    overrides: list[str] | None = None,
    dataroot: Path | None = None,
    version: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Where values are given -> the values, the first lowest; presets are not among them. Raises UserError."""
    out: dict[str, dict[str, Any]] = {str(file): _read_yaml(file)} if file else {}
    # Whatever their order: another name of a section is laid over the file's first.
    out["--set"] = reduce(merged, map(_parse_override, overrides or []), {})
    if dataroot is not None:
        # A folder the user names is the user's own: never one to simulate into.
        out["--dataroot"] = {"dataroot": str(dataroot), "simulate": None}
    if version is not None:
        out["--version"] = {"version": version}
    return out


def merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """`top` laid over `base`, section by section; a section of another `name` takes its place."""
    if "name" in top and top["name"] != base.get("name", top["name"]):
        return dict(top)
    out = dict(base)
    for name, value in top.items():
        both = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = merged(out[name], value) if both else value
    return out


def explain(error: ValidationError, model: type[BaseModel] = PipelineConfig) -> str:
    """The first fault of a config, in one sentence that names the field."""
    fault = error.errors()[0]
    path, fields = _walked(model, [str(part) for part in fault["loc"] if not str(part).startswith("function-")])
    field = ".".join(path)
    if fault["type"] == "union_tag_invalid":
        context = fault["ctx"]
        tags = context["expected_tags"]
        return f"{field}.{context['discriminator'].strip(chr(39))}: there is no {context['tag']!r}; there are {tags}"
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], fields, n=1)
        hint = f"; did you mean {'.'.join([*path[:-1], near[0]])}?" if near else ""
        return f"unknown field {field}{hint}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{field}: {message}" if field else message
    return f"{field}: {message[:1].lower()}{message[1:]}, not {fault['input']!r}"


def _walked(model: type[BaseModel], path: list[str]) -> tuple[list[str], list[str]]:
    """The path without the tags that pydantic puts before a union's fields, and the names beside its last part."""
    out: list[str] = []
    members, beside = [model], []
    for part in path:
        if tagged := [t for t in members if "name" in t.model_fields and t.model_fields["name"].default == part]:
            members = tagged
            continue
        out.append(part)
        beside = [name for t in members for name in t.model_fields]
        kind = next((t.model_fields[part].annotation for t in members if part in t.model_fields), None)
        members = [t for t in (kind, *get_args(kind)) if _is_model(t)]
    return out, beside


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _yaml(text: str) -> Any:
    """The values of a text. Raises yaml.YAMLError, or RecursionError.

    libyaml reads ten times as fast, but deep nesting ends the process: so short a text holds none that would.
    """
    short = len(text) < LONGEST_FOR_LIBYAML and hasattr(yaml, "CSafeLoader")
    return yaml.load(text, yaml.CSafeLoader if short else yaml.SafeLoader)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = _yaml(file.read_text())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); presets are in {PRESETS.name}/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is not YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise UserError(f"{file}: is nested too deeply; sections have fields, and few of these have fields") from None
    if not isinstance(values or {}, dict):
        raise UserError(f"{file}: must hold sections such as `depth:`, not a {type(values).__name__}")
    return values or {}


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def _parse_override(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not all(name.split(".")) or name.count(".") > DEEPEST:
        raise UserError(f"--set {_short(text)}: write it as section.field=value, such as depth.sweeps=2")
    try:
        out: Any = _yaml(value)
    except (yaml.YAMLError, RecursionError):
        raise UserError(f"--set {_short(text)}: {_short(value)!r} is not a value in YAML") from None
    for part in reversed(name.split(".")):
        out = {part: out}
    return out
