"""Stages and steps.

A stage is a name, a frozen config, an integer VERSION, the stages it needs and one function
`run(config, inputs, artifact) -> summary`. A step is one stage of one run: its settings, its recipe (all that decides
the result, so the key), the place of its artifact, and the artifacts that it reads. A step can be written down and run
in another process, or again years later: its artifact's manifest keeps it.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.garbage import unsearched
from common.settings import Settings
from storage.artifact import Artifact
from storage.leases import PartLeases
from storage.manifest import Recipe

StageName = Literal["ingest", "fit", "teacher", "depth", "pretrain", "finetune", "evaluate"]


@dataclass(frozen=True)
class Ignored:
    """What of an input makes no difference to a stage: fields of its config, and entries of its recipe's files."""

    config: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline; `entry` is imported when it runs, so that planning needs neither torch nor zarr."""

    name: StageName
    title: str  # what it does, for people
    needs: tuple[StageName, ...]
    entry: str  # "module:function"
    settings: str  # the class of its config, in the module `config` beside that
    packages: tuple[str, ...]  # whose versions the manifest records
    # Patterns of the names of what it leaves; what begins with a dot it keeps for itself until it is finished.
    outputs: tuple[str, ...]
    on_device: bool = False  # whether it wants the GPU, or all cores, for itself
    # Whether its stores are written in parts by `write(config, inputs, artifact, leases)` beside `entry`, which returns
    # what more there is to report. Any number of processes may run that at once; `entry` follows in one of them.
    in_parts: bool = False

    @property
    def is_command(self) -> bool:
        """Whether a command of its own runs it."""
        return self.name not in BELONGS_TO

    @property
    def version(self) -> int:
        """VERSION (or <NAME>_VERSION) of the stage's config module: raised when equal configs give another result."""
        module = importlib.import_module(self._module + ".config")
        return getattr(module, f"{self.name.upper()}_VERSION", None) or module.VERSION

    def parse(self, config: Mapping[str, Any]) -> Settings:
        """The stage's config of its JSON."""
        return getattr(importlib.import_module(self._module + ".config"), self.settings).model_validate(config)

    def run(self, config: Settings, inputs: "Inputs", artifact: Artifact) -> dict[str, Any]:
        module, function = self.entry.split(":")
        return _imported(module, function)(config, inputs, artifact)

    def write_parts(self, config: Settings, inputs: "Inputs", artifact: Artifact, leases: PartLeases) -> dict[str, Any]:
        """Of a stage in parts: write them, together with whoever else does, until all are there."""
        return _imported(self.entry.split(":")[0], "write")(config, inputs, artifact, leases)

    @property
    def _module(self) -> str:
        return self.entry.rsplit(".", 1)[0]


def _imported(module: str, function: str) -> Callable[..., dict[str, Any]]:
    with unsearched():
        return getattr(importlib.import_module(module), function)


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "ingest",
            "nuScenes tables to index.zarr",
            (),
            "tasks.ingest.run:run",
            "IngestConfig",
            ("zarr", "numpy"),
            ("index.zarr", "report.md"),
        ),
        Stage(
            "fit",
            "train the LiDAR detector",
            ("ingest",),
            "tasks.teacher.fit:run",
            "FitConfig",
            ("torch", "numpy"),
            ("detector.safetensors", "metrics.json", "results_nusc.json", "log", ".checkpoint.pt*"),
            on_device=True,
        ),
        Stage(
            "teacher",
            "LiDAR BEV features",
            ("ingest", "fit"),
            "tasks.teacher.teacher:run",
            "TeacherConfig",
            ("torch", "zarr", "numcodecs"),
            ("bev.zarr", "gate.json", "boxes.zarr", "metrics.json", "results_nusc.json"),
            on_device=True,
            in_parts=True,
        ),
        Stage(
            "depth",
            "LiDAR points in the cameras",
            ("ingest",),
            "tasks.depth.run:run",
            "DepthConfig",
            ("zarr", "numcodecs", "numpy"),
            ("depth.zarr", "depth.png"),
            in_parts=True,
        ),
        Stage(
            "pretrain",
            "masked pretraining",
            ("ingest", "teacher", "depth"),
            "tasks.pretrain.run:run",
            "PretrainConfig",
            ("torch", "pillow", "simplejpeg"),
            (
                "backbone.safetensors",
                "model.safetensors",
                "metrics.jsonl",
                "events.out.tfevents.*",
                "pretrain.png",
                "bev_colours.npz",
                "rendered.png",
                ".checkpoint.pt*",
            ),
            on_device=True,
        ),
        Stage(
            "finetune",
            "train the camera detector",
            ("ingest", "depth", "pretrain"),
            "tasks.finetune.run:run",
            "FinetuneConfig",
            ("torch", "pillow", "simplejpeg"),
            ("detector.safetensors", "log", ".checkpoint.pt*"),
            on_device=True,
        ),
        Stage(
            "evaluate",
            "the camera detector's predictions and scores",
            ("ingest", "finetune"),
            "tasks.finetune.evaluate:run",
            "Evaluation",
            ("torch", "pillow", "simplejpeg", "nuscenes-devkit"),
            ("metrics.json", "results_nusc.json", "report.md", "coverage.txt", "detections.json", "detections_*.png"),
            on_device=True,
        ),
    )
}

# On the command line a stage's own command runs those that belong to it too.
BELONGS_TO: dict[StageName, StageName] = {"evaluate": "finetune"}

CAMERA_SWEEPS = "sweeps/CAM_*"  # an entry of ingest's files

# What of ingest's result only its own config asks for: previous camera frames, which no stage reads yet.
_FRAMES = Ignored(("frames",), (CAMERA_SWEEPS,))
# (stage, input) -> what of the input makes no difference.
IGNORED: dict[tuple[str, str], Ignored] = {
    **{(stage, "ingest"): _FRAMES for stage in STAGES if stage != "ingest"},
    ("pretrain", "teacher"): Ignored(("detections",)),
}


@dataclass(frozen=True)
class Inputs:
    """What a stage may read: the dataroot with its version of the tables, and the artifacts it needs, by name."""

    dataroot: Path
    version: str
    artifacts: dict[str, Artifact]

    def __getitem__(self, name: str) -> Artifact:
        return self.artifacts[name]

    def __contains__(self, name: str) -> bool:
        return name in self.artifacts


@dataclass(frozen=True)
class Step:
    """One stage of one run."""

    stage: Stage
    config: Settings
    recipe: Recipe
    artifact: Artifact
    inputs: Inputs
    command: str = field(default="", compare=False)  # what the user typed, for the record

    def as_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage.name,
            "config": self.config.model_dump(mode="json"),
            "recipe": self.recipe.model_dump(mode="json"),
            "root": str(self.artifact.root),
            "dataroot": str(self.inputs.dataroot),
            "version": self.inputs.version,
            "inputs": {name: [artifact.stage, artifact.key] for name, artifact in self.inputs.artifacts.items()},
            "command": self.command,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], root: Path | None = None) -> "Step":
        """The step that was written down; root: where the artifacts are now, if not where they were."""
        stage = STAGES[value["stage"]]
        root = root or Path(value["root"])
        recipe = Recipe.model_validate(value["recipe"])
        inputs = {name: Artifact(root, stage_name, key) for name, (stage_name, key) in value["inputs"].items()}
        return cls(
            stage,
            stage.parse(value["config"]),
            recipe,
            Artifact(root, stage.name, recipe.key),
            Inputs(Path(value["dataroot"]), value["version"], inputs),
            value["command"],
        )
