"""A run as its report sees it: the nodes of its plan, what each left, and its arms with their scores."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gallery.opened import Opened, open_artifact
from gallery.report.notes import Notes
from storage.index import Index
from storage.manifest import Manifest
from tasks.engine.config import PipelineConfig
from tasks.engine.dag import BASELINE, arms
from tasks.engine.integrity import check_file
from tasks.engine.plan import Planned
from tasks.finetune.config import FinetuneConfig

METRICS = "metrics.json"
STATES = {"cached": "cached", "running": "running", "resume": "unfinished", "run": "to run"}


@dataclass(frozen=True)
class Arm:
    """A detector of the run."""

    name: str  # for people
    suffix: str  # behind the names of its nodes
    config: FinetuneConfig
    metrics: dict[str, Any] | None  # None where there are none that read
    opened: Opened | None  # its evaluation, None where that is not finished


@dataclass
class Run:
    """The nodes with all that they left. Nothing raises for what is not there: `notes` says it.

    dataroot: None where its files are not there.
    """

    config: PipelineConfig
    plan: list[Planned]
    dataroot: Path | None
    notes: Notes = field(default_factory=Notes)

    def node(self, name: str) -> Planned | None:
        return next((planned for planned in self.plan if planned.name == name), None)

    def folder(self, name: str) -> Path | None:
        """Where a node's results are, finished or not; None where it never began."""
        planned = self.node(name)
        if planned is None or planned.step is None or not planned.step.artifact.path.is_dir():
            return None
        return planned.step.artifact.path

    def manifest(self, name: str) -> Manifest | None:
        """A finished node's, be it damaged since."""
        planned = self.node(name)
        return planned.step.artifact.manifest() if planned and planned.step else None

    def checked(self, name: str, file: str) -> Path | None:
        """A file of a node's, None where it is not there. Raises DataError where it is not what was written."""
        folder, manifest = self.folder(name), self.manifest(name)
        if folder is None or not ((folder / file).is_file() or (manifest and file in manifest.files)):
            return None
        check_file(folder / file, f"the report shows {file}")
        return folder / file

    def opened(self, name: str) -> Opened | None:
        """A finished node's samples, None where it is not finished or its index does not read."""
        if (folder := self.folder(name)) is None or self.manifest(name) is None:
            return None
        with self.notes.unless(f"the samples of {name}"):
            return open_artifact(folder, self.dataroot)
        return None

    @cached_property
    def index(self) -> Index | None:
        opened = self.opened("ingest")
        return opened.index if opened else None

    @cached_property
    def arms(self) -> list[Arm]:
        """The detector that the run is about, then its baseline if it has one."""
        out = []
        for suffix, settings in _detectors(self.config).items():
            evaluation, metrics = f"evaluate{suffix}", None
            with self.notes.unless(f"the scores of {evaluation}"):
                file = self.checked(evaluation, METRICS)
                metrics = json.loads(file.read_text()) if file else None
            name = _name(self.config, settings, suffix)
            out.append(Arm(name, suffix, settings, metrics, self.opened(evaluation)))
        return out


def state(planned: Planned) -> str:
    """A node's state in a word or two."""
    return "damaged" if planned.why.startswith("damaged:") else STATES[planned.state]


def _detectors(config: PipelineConfig) -> dict[str, FinetuneConfig]:
    return {"": config.finetune} if config.evaluate.checkpoint is not None else arms(config)


def _name(config: PipelineConfig, settings: FinetuneConfig, suffix: str) -> str:
    if suffix == BASELINE:
        return "baseline"
    if config.evaluate.checkpoint is not None:
        return "checkpoint"
    return {"pretrain": "pretrained", "random": "from random weights"}.get(settings.init, "from a file's weights")
