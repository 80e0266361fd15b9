"""Stages, and what stands between a config and its artifacts: recipes, plans and the one way to run a stage.

A stage is a name, a frozen config, an integer VERSION, the stages it needs and one function
`run(config, inputs, artifact) -> summary`. Its recipe (all that decides the result) gives its key; its key names its
artifact; an artifact that is there and whole is never made again.
"""

import contextlib
import errno
import fcntl
import importlib
import importlib.metadata
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from storage.artifact import Artifact, Manifest, Recipe
from tasks.errors import UserError
from tasks.settings import Settings

SECONDS_FOR_A_KILLED_RUN_TO_END = 3.0


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline; `entry` is imported when it runs, so that planning needs neither torch nor zarr."""

    name: str
    title: str  # what it does, for people
    needs: tuple[str, ...]
    entry: str  # "module:function"
    packages: tuple[str, ...]  # whose versions the manifest records

    @property
    def version(self) -> int:
        """VERSION (or <NAME>_VERSION) of the stage's config module: raised when equal configs give another result."""
        module = importlib.import_module(self.entry.rsplit(".", 1)[0] + ".config")
        return getattr(module, f"{self.name.upper()}_VERSION", None) or module.VERSION

    def run(self, config: Settings, inputs: "Inputs", artifact: Artifact) -> dict[str, Any]:
        module, function = self.entry.split(":")
        return getattr(importlib.import_module(module), function)(config, inputs, artifact)


STAGES = {
    stage.name: stage
    for stage in (
        Stage("ingest", "nuScenes tables to index.zarr", (), "tasks.ingest.run:run", ("zarr",)),
        Stage("fit", "train the LiDAR detector", ("ingest",), "tasks.teacher.fit:run", ("torch", "mmdet3d")),
        Stage("teacher", "LiDAR BEV features", ("ingest", "fit"), "tasks.teacher.teacher:run", ("torch", "zarr")),
        Stage("depth", "LiDAR points in the cameras", ("ingest",), "tasks.depth.run:run", ("zarr", "numpy")),
        Stage("pretrain", "GeoMIM pretraining", ("ingest", "teacher", "depth"), "tasks.pretrain.run:run", ("torch",)),
        Stage(
            "finetune",
            "camera detector and its evaluation",
            ("ingest", "depth", "pretrain"),
            "tasks.finetune.run:run",
            ("torch", "nuscenes-devkit"),
        ),
    )
}


def active_stages(config: Any) -> list[Stage]:
    """The stages a config asks for, in order."""
    return [stage for stage in STAGES.values() if not why_inactive(config, stage.name)]


def why_inactive(config: Any, name: str) -> str:
    """Why nobody in this config wants the stage's result; empty where somebody does."""
    finetune = config.finetune
    unused = "" if finetune.begins_with_pretraining else f"finetune.init is {finetune.init!r}, not 'pretrain'"
    if not finetune.trains:
        unused = "finetune.checkpoint is evaluated as it is"
    fitted = config.teacher.weights == "fit"
    return {
        "fit": unused or ("" if fitted else f"teacher.weights is {config.teacher.weights!r}, not 'fit'"),
        "teacher": unused,
        "depth": "" if finetune.needs_depth else unused,
        "pretrain": unused,
    }.get(name, "")


@dataclass(frozen=True)
class Inputs:
    """What a stage may read: the dataroot with its version of the tables, and the artifacts it needs, by stage name."""

    dataroot: Path
    version: str
    artifacts: dict[str, Artifact]

    def __getitem__(self, stage: str) -> Artifact:
        return self.artifacts[stage]

    def __contains__(self, stage: str) -> bool:
        return stage in self.artifacts


@dataclass(frozen=True)
class Step:
    """One stage of one run: its settings, its recipe and the place of its artifact."""

    stage: Stage
    config: Settings
    recipe: Recipe
    artifact: Artifact
    inputs: Inputs


def execute(step: Step) -> Manifest:
    """Run a stage, or take its artifact where it is whole already. Raises UserError for what a user can mend.

    The inputs must be there. One process at a time works on an artifact; an interrupted one's work is taken up.
    """
    artifact = step.artifact
    for name, needed in step.inputs.artifacts.items():
        if not needed.is_whole():
            raise UserError(f"{step.stage.name} needs the {name} artifact ({needed.path}): run `geomim {name}` first")
    with _alone(artifact), _storage_faults(artifact):
        if artifact.is_whole():
            return artifact.manifest()
        if artifact.manifest() is not None:
            artifact.remove()  # damaged: what its done flags say can't be trusted either
        start = time.monotonic()
        artifact.begin(step.recipe)
        summary = step.stage.run(step.config, step.inputs, artifact)
        versions = {package: importlib.metadata.version(package) for package in step.stage.packages}
        return artifact.finish(step.recipe, summary, time.monotonic() - start, versions)


@contextlib.contextmanager
def _alone(artifact: Artifact) -> Iterator[None]:
    lock = artifact.path.with_name(f".{artifact.path.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = open(lock, "w")  # noqa: SIM115 (held while the lock is)
    except OSError as error:
        raise UserError(f"{lock.parent}: cannot be written ({error.strerror}); choose another --root") from None
    with file:
        deadline = time.monotonic() + SECONDS_FOR_A_KILLED_RUN_TO_END
        while not _locked(file):
            if time.monotonic() > deadline:
                raise UserError(f"{artifact.path}: another process is working on it; wait for it or stop it")
            time.sleep(0.1)
        yield


def _locked(file: IO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _storage_faults(artifact: Artifact) -> Iterator[None]:
    """A full or read-only disk is nobody's bug: say so in a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            raise
        raise UserError(
            f"{error.filename or artifact.path}: {error.strerror}; what is done is kept: "
            "make room and run the same command again"
        ) from error
