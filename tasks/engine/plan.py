"""What a run would do and why: keys top-down, states from the store, reasons as a field-level diff. Runs nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from common.errors import UserError
from storage.artifact import Artifact
from storage.damage import Damaged
from storage.digests import Digests
from storage.key import diff
from storage.lock import holder
from storage.manifest import Extent, Manifest, Recipe, contents, read_manifest
from storage.mirror import mirror_of
from tasks.engine.config import PipelineConfig
from tasks.engine.dag import Node, build_dag
from tasks.engine.external import external_digests
from tasks.engine.stage import BELONGS_TO, IGNORED, STAGES, Ignored, Inputs, Stage, Step

State = Literal["cached", "running", "resume", "run"]


@dataclass(frozen=True)
class Planned:
    """One node of a plan. Without a dataroot there is no key, so no step: `why` says what is missing."""

    node: Node
    state: State
    why: str
    step: Step | None

    @property
    def name(self) -> str:
        """The stage's, of a second arm with more behind it."""
        return self.node.name

    @property
    def stage(self) -> Stage:
        return self.node.stage

    def ready(self) -> Step:
        """The step. Raises UserError, which says what is missing, where there is none."""
        if self.step is None:
            raise UserError(self.why)
        return self.step

    def as_json(self) -> dict[str, Any]:
        """What `geomim status --json` prints of it."""
        artifact = self.step.artifact if self.step else None
        manifest = artifact.manifest() if artifact and self.state == "cached" else None
        if artifact and manifest is None and self.state == "cached" and (mirror := mirror_of(artifact.root)):
            manifest = mirror.there(artifact)
        return {
            "stage": self.name,
            "key": artifact.key if artifact else None,
            "state": self.state,
            "path": str(artifact.path) if artifact else None,
            "bytes": manifest.bytes if manifest else _bytes(artifact),
            "why": self.why,
        }


def make_plan(config: PipelineConfig, root: Path, forced: Iterable[str] = (), command: str = "") -> list[Planned]:
    """Every stage the config asks for, in order. Raises UserError where a file the config names is not there.

    command: what the user typed, for the record.
    """
    digests = Digests(root / ".digests.json")
    steps: dict[str, Step] = {}
    plan, forced = [], set(forced)
    missing = missing_dataroot(config)
    for node in build_dag(config):
        if missing or config.dataroot is None:
            plan.append(Planned(node, "run", missing, None))
            continue
        read = {need: steps[name] for need, name in node.needs.items()}
        ignored = {need: IGNORED.get((node.stage.name, step.stage.name), Ignored()) for need, step in read.items()}
        recipe = Recipe(
            stage=node.stage.name,
            version=node.stage.version,
            config=node.config.key_fields(),
            inputs={need: identity(step.recipe, ignored[need]) for need, step in read.items()},
            files=external_digests(node, config, config.dataroot, digests),
        )
        inputs = Inputs(config.dataroot, config.version, {need: step.artifact for need, step in read.items()})
        step = Step(node.stage, node.config, recipe, Artifact(root, node.stage.name, recipe.key), inputs, command)
        steps[node.name] = step
        plan.append(Planned(node, *state_of(step, is_named(node, forced)), step))
    digests.save()
    return plan


def is_named(node: Node, names: Iterable[str]) -> bool:
    """Whether a node is among the named: by its own name, its stage's, or that of the command that runs it."""
    return bool({node.name, node.stage.name, node.command} & set(names))


def identity(recipe: Recipe, ignored: Ignored) -> str:
    """What stands for an input in a recipe: the key that it would have without what makes no difference."""
    config = {name: value for name, value in recipe.config.items() if name not in ignored.config}
    files = {name: value for name, value in recipe.files.items() if name not in ignored.files}
    return recipe.model_copy(update={"config": config, "files": files}).key


def with_inputs_checked(chosen: list[Planned]) -> list[Planned]:
    """The nodes of a run, where of the artifacts that they would read all that is cheap to read has been checked.

    One that is damaged is to be run again, if it is among them; if not, its reader says so.
    """
    read = {name for planned in chosen if planned.state != "cached" for name in planned.node.needs.values()}
    out = []
    for planned in chosen:
        if planned.state == "cached" and planned.name in read:
            damage = _damage(planned.ready().artifact, "small")
            planned = replace(planned, state="run", why=damage) if damage else planned
        out.append(planned)
    return out


def select(plan: list[Planned], first: str | None, last: str | None) -> list[Planned]:
    """The nodes from `first` to `last`, names of stages. Raises UserError where one that they need is not cached."""
    names: list[str] = list(dict.fromkeys(planned.stage.name for planned in plan))
    for option, name in (("--from", first), ("--to", last)):
        if name is not None and name not in names:
            raise UserError(f"{option} {name}: this config has the stages {', '.join(names)}")
    start = names.index(first) if first else 0
    stop = max(i for i, name in enumerate(names) if last in (None, name, BELONGS_TO.get(STAGES[name].name)))
    if start > stop:
        raise UserError(f"--from {first} --to {last}: {first} comes after {last}")
    selected = names[start : stop + 1]
    chosen = [planned for planned in plan if planned.stage.name in selected]
    needed = {name for planned in chosen for name in planned.node.needs.values()} - {p.name for p in chosen}
    for planned in plan:
        if planned.name in needed and planned.state != "cached":
            raise UserError(f"--from {first}: {planned.name} is not cached ({planned.why}); run it first")
    return chosen


def stage_named(name: str) -> Stage:
    """The stage of that name; raises UserError otherwise."""
    if name not in STAGES:
        raise UserError(f"there is no stage {name!r}; there are {', '.join(STAGES)}")
    return STAGES[name]


def state_of(step: Step, forced: bool = False) -> tuple[State, str]:
    """A step's state, and why it is not cached."""
    artifact, mirror = step.artifact, mirror_of(step.artifact.root)
    if forced:
        return "run", "forced"
    if artifact.has_manifest():
        damage = _damage(artifact, "sizes")
        unsent = mirror.unsent(artifact) if mirror and not damage else ""
        return ("run", damage) if damage else ("resume", unsent) if unsent else ("cached", "")
    if mirror and mirror.there(artifact):
        return "cached", ""
    progress = artifact.progress()
    if progress is not None:
        done, total = progress
        state: State = "running" if holder(artifact.path) else "resume"
        return state, f"{done} of {total} done" if total else "began" + " and was interrupted" * (state == "resume")
    return "run", _nearest_difference(artifact, step.recipe)


def _damage(artifact: Artifact, extent: Extent) -> str:
    return next((f"damaged: {damage}" for damage in artifact.damages(extent) if damage.matters), "")


def missing_dataroot(config: PipelineConfig) -> str:
    """What is wrong with a config's dataroot, and the remedy; "" where it is there."""
    if config.dataroot is None:
        return "no dataroot is given: add --dataroot DIR"
    if not config.dataroot.is_dir():
        make = "`geomim run` simulates it" if config.simulate else "check --dataroot"
        return f"the dataroot {config.dataroot} is not there: {make}"
    if not (config.dataroot / config.version).is_dir():
        if config.simulate:
            return f"the simulation of {config.dataroot} is not finished: `geomim run` makes it"
        versions = sorted(p.name for p in config.dataroot.iterdir() if p.is_dir() and (p / "sample.json").is_file())
        remedy = f"add --version {' or '.join(versions)}" if versions else "name a folder in nuScenes format"
        return f"{config.dataroot} has no tables {config.version}: {remedy}"
    return ""


def _nearest_difference(artifact: Artifact, recipe: Recipe) -> str:
    """How the recipe differs from that of the stage's artifact that comes nearest to it."""
    manifests = list(_manifests(artifact.path.parent))
    if not manifests:
        return "never run"
    new = recipe.model_dump()
    differences = [(diff(m.recipe.model_dump(), new), m.created) for m in manifests]
    nearest = min(differences, key=lambda pair: (len(pair[0]), [-ord(c) for c in pair[1]]))[0]
    return "; ".join(_reason(recipe.stage, field, old, now) for field, (old, now) in nearest.items())


def _manifests(folder: Path) -> Iterator[Manifest]:
    """Those of a stage's artifacts, without what was set aside or does not read."""
    for place in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not place.name.startswith(".") and ".damaged-" not in place.name:
            try:
                manifest = read_manifest(place)
            except (Damaged, ValueError):
                continue
            if manifest is not None:
                yield manifest


def _reason(stage: str, field: str, old: Any, new: Any) -> str:
    kind, _, name = field.partition(".")
    if kind in ("inputs", "files"):
        what = "input" if kind == "inputs" else "file"
        return f"{what} {name} changed" if old and new else f"{what} {name} {'added' if new else 'removed'}"
    if kind == "version":
        return f"the code of {stage} changed (version {old} -> {new})"
    return f"{stage}.{name}: {old} -> {new}"


def _bytes(artifact: Artifact | None) -> int:
    return sum(size for _, size in contents(artifact.path).values()) if artifact else 0
