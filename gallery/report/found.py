"""A run whose dataroot is gone, or has lost files: its keys are others then, but what it left says what made it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from storage.artifact import Artifact
from tasks.engine.config import PipelineConfig
from tasks.engine.dag import Node, build_dag
from tasks.engine.plan import Planned, State, state_of
from tasks.engine.stage import Step


def find_run(config: PipelineConfig, root: Path, why: str, tables: Mapping[str, str] | None = None) -> list[Planned]:
    """A plan of finished artifacts of these settings that were made from one another.

    Those of the config's own dataroot come first, of these the newest. why: what is missing, for the nodes of which
    none is found. tables: digests of JSON files, as in ingest's recipe, that the data must have.
    """
    plan, keys = list[Planned](), dict[str, str]()
    for node in build_dag(config):
        step = next((found for found in _steps(node, config, root) if _fits(node, found, keys, tables)), None)
        if step is None:
            plan.append(Planned(node, "run", why, None))
            continue
        keys[node.name] = step.artifact.key
        now: tuple[State, str] = state_of(step)
        plan.append(Planned(node, *now, step))
    return plan


def _steps(node: Node, config: PipelineConfig, root: Path) -> Iterator[Step]:
    """Of the artifacts with a node's settings, best first."""
    folder, found = root / node.stage.name, list[tuple[bool, str, Step]]()
    for path in folder.iterdir() if folder.is_dir() else ():
        manifest = Artifact(root, node.stage.name, path.name).manifest() if ".damaged-" not in path.name else None
        if manifest is None:
            continue
        try:
            step = Step.from_json(manifest.made["step"], root)
        except (KeyError, ValueError):  # of another geomim
            continue
        if (manifest.recipe.config, manifest.recipe.version) == (node.config.key_fields(), node.stage.version):
            found.append((step.inputs.dataroot == config.dataroot, manifest.created, step))
    for _, _, step in sorted(found, key=lambda entry: entry[:2], reverse=True):
        yield step


def _fits(node: Node, step: Step, keys: Mapping[str, str], tables: Mapping[str, str] | None) -> bool:
    """Whether it read the artifacts that stand for the nodes that it needs, or ingest these tables."""
    if node.stage.name == "ingest" and tables is not None and tables != tables_of(step):
        return False
    return all(keys.get(name) == step.inputs[need].key for need, name in node.needs.items() if need in step.inputs)


def tables_of(step: Step) -> dict[str, str]:
    """Of an ingest: the digests of its JSON files."""
    return {name: digest for name, digest in step.recipe.files.items() if name.endswith(".json")}
