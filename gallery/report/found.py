"""A run whose dataroot is gone. Its keys cannot be computed then, but what it left says what it was made from."""

from collections.abc import Iterator
from pathlib import Path

from storage.artifact import Artifact
from storage.manifest import Manifest
from tasks.engine.config import PipelineConfig
from tasks.engine.dag import Node, build_dag
from tasks.engine.plan import Planned, State, state_of
from tasks.engine.stage import Step


def find_run(config: PipelineConfig, root: Path, why: str) -> list[Planned]:
    """A plan of the newest finished artifacts of these settings that were made from one another.

    why: what is missing, for the nodes of which none is found.
    """
    plan, keys = list[Planned](), dict[str, str]()
    for node in build_dag(config):
        step = next((found for found in _steps(node, root) if _made_from(node, found, keys)), None)
        if step is None:
            plan.append(Planned(node, "run", why, None))
            continue
        keys[node.name] = step.artifact.key
        now: tuple[State, str] = state_of(step)
        plan.append(Planned(node, *now, step))
    return plan


def _steps(node: Node, root: Path) -> Iterator[Step]:
    """Of the artifacts with a node's settings, the newest first."""
    folder, found = root / node.stage.name, list[tuple[str, Manifest]]()
    for path in folder.iterdir() if folder.is_dir() else ():
        manifest = Artifact(root, node.stage.name, path.name).manifest() if ".damaged-" not in path.name else None
        if manifest is not None and (manifest.recipe.config, manifest.recipe.version) == (
            node.config.key_fields(),
            node.stage.version,
        ):
            found.append((manifest.created, manifest))
    for _, manifest in sorted(found, key=lambda pair: pair[0], reverse=True):
        try:
            yield Step.from_json(manifest.made["step"], root)
        except (KeyError, ValueError):  # of another geomim
            continue


def _made_from(node: Node, step: Step, keys: dict[str, str]) -> bool:
    """Whether it read the artifacts that stand for the nodes that it needs."""
    return all(keys.get(name) == step.inputs[need].key for need, name in node.needs.items() if need in step.inputs)
