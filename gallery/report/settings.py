"""The settings of a run, and with what it was made: what differs from the defaults, versions, machines, commands."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.flat import flat
from gallery.report.run import Run
from storage.artifact import Artifact
from tasks.engine.config import PipelineConfig, read_preset

ASIDE = ("dataroot", "preset")  # stand in the page's head
UNTOLD = "not told"


@dataclass(frozen=True)
class Change:
    """A field that is not what it would be without this config."""

    field: str
    was: str
    now: str


@dataclass(frozen=True)
class Settings:
    over_preset: list[Change]  # what the user's file and options changed; all where there is no preset
    over_defaults: list[Change]
    whole: str  # YAML


@dataclass(frozen=True)
class Made:
    """With what a stage's artifact was made."""

    name: str
    commit: str
    device: str
    packages: str
    command: str


def settings(config: PipelineConfig) -> Settings:
    now, defaults = (dict(flat(c.model_dump(mode="json"))) for c in (config, PipelineConfig()))
    over_defaults = _changes(defaults, now)
    over_preset = over_defaults
    if config.preset is not None:
        preset = PipelineConfig.model_validate(read_preset(config.preset))
        over_preset = _changes(dict(flat(preset.model_dump(mode="json"))), now)
    whole = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110)
    return Settings(over_preset, over_defaults, whole)


def made(run: Run) -> list[Made]:
    """Of every finished stage; each package's version is told where it is first met or another."""
    out, told = [], dict[str, str]()
    for planned in run.plan:
        manifest = run.manifest(planned.name)
        if manifest is None:
            continue
        of = manifest.made
        versions = {"python": of.get("python"), "geomim": of.get("geomim"), **(of.get("packages") or {})}
        new = {name: str(version) for name, version in versions.items() if version and told.get(name) != str(version)}
        told |= new
        commit = (of.get("commit") or UNTOLD)[:10] + (" and changes" if of.get("changed") else "")
        packages = ", ".join(f"{name} {version}" for name, version in new.items()) or "as above"
        device = f"{of.get('machine', UNTOLD)}, {of.get('device', UNTOLD)}"
        out.append(Made(planned.name, commit, device, packages, of.get("command") or UNTOLD))
    return out


def commands(options: Sequence[str], run: Run) -> list[tuple[str, str]]:
    """What to type, and why. options: those that gave the config of this report."""
    words = shlex.join(options)
    out = [
        (f"geomim run {words}".strip(), "makes what is missing; what is cached is not run again"),
        (f"geomim status --why {words}".strip(), "says what would run, and why"),
        (f"geomim report {words}".strip(), "makes this page again"),
    ]
    if (folder := run.folder("evaluate")) is not None and (run.manifest("evaluate")) is not None:
        out.append((f"geomim verify {shlex.quote(_short(folder))}", "reads every byte and compares checksums"))
    if len(run.arms) > 1 and run.config.finetune.task == "detection":
        more = "repeats both arms over seeds: tells a gain from chance"
        out.append((f"geomim experiment gain --seeds 3 {words}".strip(), more))
    return out


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """Fields in the order of `now`; a section that stands in several stages is told once."""
    out = []
    for name in [*now, *(n for n in before if n not in now)]:
        section = name.partition(".")[2].partition(".")[0]
        repeated = section in ("lidar", "backbone") and name.partition(".")[0] in (
            "fit",
            "teacher",
            "pretrain",
            "finetune",
        )
        was, value = before.get(name, "-"), now.get(name, "-")
        if was != value and name not in ASIDE and not repeated:
            out.append(Change(name, _value(was), _value(value)))
    return out


def _value(value: Any) -> str:
    return "none" if value is None else str(value)


def _short(folder: Path) -> str:
    return str(Artifact(folder.parent.parent, folder.parent.name, folder.name).path)
