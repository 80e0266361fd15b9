"""The experiment's own artifact: `ROOT/experiment/<key>/` with result.json, report.md and gain.png."""

import json
import os
import platform
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from common.cores import available_cores
from common.errors import UserError
from common.progress import say
from flows.experiment.plan import Run, runs
from flows.experiment.plot import draw_gain
from flows.experiment.result import report, summarise
from storage.artifact import Artifact
from storage.atomic import write_bytes, write_json
from storage.lock import locked
from storage.manifest import Recipe
from tasks.engine.config import PipelineConfig
from tasks.engine.execute import prepare
from tasks.engine.experiment import VERSION
from tasks.engine.integrity import check_file
from tasks.engine.plan import Planned, make_plan
from tasks.engine.stage import Step

EXPERIMENT = "experiment"
RESULT, REPORT, PICTURE = "result.json", "report.md", "gain.png"


def planned_of(run: Run, root: Path, command: str = "") -> list[Planned]:
    """The run's stages, in order. Raises UserError where there is no dataroot."""
    plan = make_plan(run.config, root, command=command)
    if plan[0].step is None:
        raise UserError(plan[0].why)
    return plan


def steps_of(run: Run, root: Path) -> dict[str, Step]:
    """The run's steps by name. Raises UserError where there is no dataroot."""
    return {planned.name: planned.step for planned in planned_of(run, root)}


def conclude(config: PipelineConfig, root: Path, command: str) -> Artifact:
    """Gather the scores of all runs, which must be there, into the experiment's artifact; made once.

    command: what was typed, for the record. Raises UserError where val has no ground truth, DataError where scores are
    not what was written.
    """
    found = [(run, steps_of(run, root)) for run in runs(config)]
    recipe = Recipe(
        stage=EXPERIMENT,
        version=VERSION,
        config=config.experiment.key_fields(),
        inputs={f"{r.arm}/{r.fraction:g}/{r.seed}": steps["evaluate"].artifact.key for r, steps in found},
    )
    artifact = Artifact(root, EXPERIMENT, recipe.key)
    read = {name: ["evaluate", key] for name, key in recipe.inputs.items()}
    with _lock(artifact, command):
        if artifact.has_manifest():
            if not any(damage.matters for damage in artifact.damages("small")):
                return artifact
            prepare(artifact)
        start = time.monotonic()
        artifact.begin(recipe)
        scored = [(run, _scores(steps["evaluate"].artifact, command)) for run, steps in found]
        result = summarise(config.experiment, scored) | {"made": _made(config, found, command)}
        write_json(artifact.path / RESULT, result)
        write_bytes(artifact.path / REPORT, report(config.experiment, result).encode())
        draw_gain(artifact.path / PICTURE, result)
        made = {"command": command, "inputs": read}
        seconds = time.monotonic() - start
        artifact.finish(recipe, {"verdict": result["verdict"]}, seconds, made, (RESULT, REPORT, PICTURE))
    return artifact


def _scores(evaluated: Artifact, command: str) -> dict[str, float]:
    with _lock(evaluated, command, shared=True):
        check_file(evaluated.path / "metrics.json", "experiment: compares scores")
        metrics = json.loads((evaluated.path / "metrics.json").read_text())
    if metrics is None:
        raise UserError("experiment: the val split has no ground truth, so there is nothing to compare")
    return metrics


def _lock(artifact: Artifact, command: str, shared: bool = False) -> AbstractContextManager[None]:
    return locked(artifact.path, command, shared, waiting=lambda line: say(f"experiment: {line}"))


def _made(config: PipelineConfig, found: list[tuple[Run, dict[str, Step]]], command: str) -> dict[str, Any]:
    """What, with what sizes and where: for the reader of the result alone."""
    artifacts = {step.artifact.path: step.artifact for _, steps in found for step in steps.values()}
    pretrain, finetune = config.pretrain, config.finetune
    threads = os.environ.get("OMP_NUM_THREADS")
    return {
        "command": command,
        "labelled samples": {
            f"{run.fraction:g}": steps["finetune"].artifact.summary["train_samples"] for run, steps in found
        },
        "backbone": str(config.backbone.key_fields()),
        "pretraining": f"{pretrain.steps} steps of {pretrain.batch_size} at {'x'.join(map(str, pretrain.image.size))}",
        "finetuning": f"{finetune.steps} steps of {finetune.batch_size} at {'x'.join(map(str, finetune.image.size))}",
        "machine": f"{platform.machine()}, {available_cores()} cores, OMP_NUM_THREADS {threads}",
        "seconds of the runs that finished them": round(sum(a.manifest().seconds for a in artifacts.values())),
    }
