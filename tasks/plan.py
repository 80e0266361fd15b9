"""What a run would do and why: keys top-down, states from the store, reasons as a field-level diff. Runs nothing."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from storage.artifact import Artifact, Manifest, Recipe, contents, read_manifest
from storage.digests import Digests
from storage.key import diff
from tasks.config import PipelineConfig
from tasks.errors import UserError
from tasks.ingest.config import digest_tables
from tasks.stage import STAGES, Inputs, Stage, Step, active_stages

State = Literal["cached", "resume", "run"]


@dataclass(frozen=True)
class Planned:
    """One stage of a plan. Without a dataroot there is no key, so no step: `why` says what is missing."""

    stage: Stage
    state: State
    why: str
    step: Step | None

    def as_json(self) -> dict[str, Any]:
        """What `geomim status --json` prints of the stage."""
        artifact = self.step.artifact if self.step else None
        manifest = artifact.manifest() if artifact and self.state == "cached" else None
        return {
            "stage": self.stage.name,
            "key": artifact.key if artifact else None,
            "state": self.state,
            "path": str(artifact.path) if artifact else None,
            "bytes": manifest.bytes if manifest else _bytes(artifact),
            "why": self.why,
        }


def make_plan(config: PipelineConfig, root: Path, forced: Iterable[str] = ()) -> list[Planned]:
    """Every stage the config asks for, in order. Raises UserError where a file the config names is not there."""
    digests = Digests(root / ".digests.json")
    artifacts: dict[str, Artifact] = {}
    plan = []
    missing = _missing_dataroot(config)
    for stage in active_stages(config):
        section = getattr(config, stage.name)
        if missing:
            plan.append(Planned(stage, "run", missing, None))
            continue
        needs = {name: artifacts[name] for name in stage.needs if name in artifacts}
        recipe = Recipe(
            stage=stage.name,
            version=stage.version,
            config=section.key_fields(),
            inputs={name: artifact.key for name, artifact in needs.items()},
            files=_external_digests(stage, config, digests),
        )
        artifact = artifacts[stage.name] = Artifact(root, stage.name, recipe.key)
        step = Step(stage, section, recipe, artifact, Inputs(config.dataroot, config.version, needs))
        state, why = _state(artifact, recipe, stage.name in set(forced))
        plan.append(Planned(stage, state, why, step))
    return plan


def select(plan: list[Planned], first: str | None, last: str | None) -> list[Planned]:
    """The stages from `first` to `last`. Raises UserError where a stage before `first` that they need is not cached."""
    names = [planned.stage.name for planned in plan]
    for option, name in (("--from", first), ("--to", last)):
        if name is not None and name not in names:
            raise UserError(f"{option} {name}: this config has the stages {', '.join(names)}")
    start = names.index(first) if first else 0
    stop = names.index(last) + 1 if last else len(names)
    if start >= stop:
        raise UserError(f"--from {first} --to {last}: {first} comes after {last}")
    chosen = plan[start:stop]
    needed = {name for planned in chosen for name in planned.stage.needs}
    for planned in plan[:start]:
        if planned.stage.name in needed and planned.state != "cached":
            raise UserError(f"--from {first}: {planned.stage.name} is not cached ({planned.why}); run it first")
    return chosen


def _missing_dataroot(config: PipelineConfig) -> str:
    if config.dataroot is None:
        return "no dataroot is given: add --dataroot DIR"
    if not config.dataroot.is_dir():
        make = "`geomim run` simulates it" if config.simulate else "check --dataroot"
        return f"the dataroot {config.dataroot} is not there: {make}"
    if not (config.dataroot / config.version).is_dir():
        if config.simulate:
            return f"the simulation of {config.dataroot} is not finished: `geomim run` makes it"
        there = sorted(p.name for p in config.dataroot.iterdir() if p.is_dir() and (p / "sample.json").is_file())
        remedy = f"add --version {' or '.join(there)}" if there else "name a folder in nuScenes format"
        return f"{config.dataroot} has no tables {config.version}: {remedy}"
    return ""


def _external_digests(stage: Stage, config: PipelineConfig, digests: Digests) -> dict[str, str]:
    out = {}
    if stage.name == "ingest":
        out = digest_tables(config.dataroot, config.version, digests.of)
    for field, path in getattr(config, stage.name).external_files().items():
        if not path.is_file():
            raise UserError(f"{stage.name}.{field}: there is no file {path}")
        out[field] = digests.of(path)
    return out


def _state(artifact: Artifact, recipe: Recipe, forced: bool) -> tuple[State, str]:
    manifest = artifact.manifest()
    if forced:
        return "run", "forced"
    if manifest is not None and manifest.key == artifact.key:
        damage = _damage(manifest, artifact)
        return ("run", damage) if damage else ("cached", "")
    progress = artifact.progress()
    if progress is not None:
        done, total = progress
        return "resume", f"{done} of {total} done" if total else "began and was interrupted"
    return "run", _nearest_difference(artifact, recipe)


def _damage(manifest: Manifest, artifact: Artifact) -> str:
    """What a finished artifact's folder lacks or has changed since, or nothing."""
    now = contents(artifact.path)
    for name, was in manifest.contents.items():
        if name not in now:
            return f"damaged: {name} is gone"
        if now[name] != was:
            return f"damaged: {name} has {now[name][0]} files, {now[name][1]} bytes, not {was[0]} and {was[1]}"
    return f"damaged: {sorted(now.keys() - manifest.contents.keys())[0]} does not belong" if len(now) > len(
        manifest.contents
    ) else ""


def _nearest_difference(artifact: Artifact, recipe: Recipe) -> str:
    """How the recipe differs from that of the stage's artifact that comes nearest to it."""
    folders = artifact.path.parent.glob("*/") if artifact.path.parent.is_dir() else []
    manifests = [m for m in map(read_manifest, folders) if m is not None]
    if not manifests:
        return "never run"
    new = recipe.model_dump()
    differences = [(diff(m.recipe.model_dump(), new), m.created) for m in manifests]
    nearest = min(differences, key=lambda pair: (len(pair[0]), [-ord(c) for c in pair[1]]))[0]
    return "; ".join(_reason(recipe.stage, field, old, now) for field, (old, now) in nearest.items())


def _reason(stage: str, field: str, old: Any, new: Any) -> str:
    kind, _, name = field.partition(".")
    if kind == "inputs":
        return f"input {name} changed" if old and new else f"input {name} {'added' if new else 'removed'}"
    if kind == "files":
        return f"file {name} changed" if old and new else f"file {name} {'added' if new else 'removed'}"
    if kind == "version":
        return f"the code of {stage} changed (version {old} -> {new})"
    return f"{stage}.{name}: {old} -> {new}"


def _bytes(artifact: Artifact | None) -> int:
    return sum(size for _, size in contents(artifact.path).values()) if artifact else 0


def stage_named(name: str) -> Stage:
    """The stage of that name; raises UserError otherwise."""
    if name not in STAGES:
        raise UserError(f"there is no stage {name!r}; there are {', '.join(STAGES)}")
    return STAGES[name]
