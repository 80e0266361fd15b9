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
from tasks.engine.stage import Step

EXPERIMENT = "experiment"
RESULT, REPORT, PICTURE = "result.json", "report.md", "gain.png"


def gather(config: PipelineConfig, root: Path, command: str) -> Artifact:
    """Gather the scores of all runs, which must be there, into the experiment's artifact; made once.

    command: what was typed, for the record. Raises UserError where val has no ground truth, DataError where scores are
    not what was written.
    """
    finished = [(run, run.steps(root)) for run in runs(config)]
    recipe = Recipe(
        stage=EXPERIMENT,
        version=VERSION,
        config=config.experiment.key_fields(),
        inputs={f"{r.arm}/{r.fraction:g}/{r.seed}": steps["evaluate"].artifact.key for r, steps in finished},
    )
    artifact = Artifact(root, EXPERIMENT, recipe.key)
    inputs = {name: ["evaluate", key] for name, key in recipe.inputs.items()}
    with _lock(artifact, command):
        if artifact.has_manifest():
            if not any(damage.matters for damage in artifact.damages("small")):
                return artifact
            prepare(artifact)
        start = time.monotonic()
        artifact.begin(recipe)
        scored = [(run, _scores(steps["evaluate"].artifact, command)) for run, steps in finished]
        result = summarise(config.experiment, scored) | {"made": _circumstances(config, finished, command)}
        write_json(artifact.path / RESULT, result)
        write_bytes(artifact.path / REPORT, report(config.experiment, result).encode())
        draw_gain(artifact.path / PICTURE, result)
        seconds, provenance = time.monotonic() - start, {"command": command, "inputs": inputs}
        artifact.finish(recipe, {"verdict": result["verdict"]}, seconds, provenance, (RESULT, REPORT, PICTURE))
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


def _circumstances(config: PipelineConfig, finished: list[tuple[Run, dict[str, Step]]], command: str) -> dict[str, Any]:
    """What, with what sizes and where: for the reader of the result alone."""
    artifacts = {step.artifact.path: step.artifact for _, steps in finished for step in steps.values()}
    pretrain, finetune = config.pretrain, config.finetune
    threads = os.environ.get("OMP_NUM_THREADS")
    return {
        "command": command,
        "labelled samples": {
            f"{run.fraction:g}": steps["finetune"].artifact.summary["train_samples"] for run, steps in finished
        },
        "backbone": str(config.backbone.key_fields()),
        "pretraining": f"{pretrain.steps} steps of {pretrain.batch_size} at {'x'.join(map(str, pretrain.image.size))}",
        "finetuning": f"{finetune.steps} steps of {finetune.batch_size} at {'x'.join(map(str, finetune.image.size))}",
        "machine": f"{platform.machine()}, {available_cores()} cores, OMP_NUM_THREADS {threads}",
        "seconds of the runs that finished them": round(sum(a.finished().seconds for a in artifacts.values())),
    }
