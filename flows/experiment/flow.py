"""`geomim experiment gain`: the pipeline once for every arm, seed and share of labels, then the comparison.

Each run is the ordinary stages under their own keys: what is cached is not run again, and a killed experiment goes on.
"""

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, State

from common.errors import FileSystemError, UserError
from common.progress import say
from flows.experiment.artifact import REPORT, gather
from flows.experiment.plan import runs
from flows.pipeline import ROOT, failed, outcome, submit
from flows.stage_task import show_pictures, without_tracebacks
from storage.sentences import in_sentences
from tasks.engine.config import PipelineConfig
from tasks.engine.roots import usable_root


@task(name="conclude")
def conclude(config: PipelineConfig, root: Path, command: str) -> Path:
    """The folder of the experiment's artifact; its report and picture are left in Prefect."""
    with in_sentences(root / "experiment"):
        artifact = gather(config, root, command)
    create_markdown_artifact(key="experiment-gain-report", markdown=(artifact.path / REPORT).read_text())
    show_pictures(artifact)
    return artifact.path


@flow(name="experiment-gain")
def experiment_gain(config: PipelineConfig, root: Path = ROOT, command: str = "experiment-gain") -> State:
    """Does pretraining pay? Every arm with every seed at every share of the labels."""
    without_tracebacks()
    root = root.resolve()
    done: set[str] = set()  # keys
    try:
        usable_root(root)
        planned_runs = list(runs(config))
        for number, run in enumerate(planned_runs, 1):
            which = f"{run.arm}, {run.fraction:.0%} of labels, seed {run.seed}"
            say(f"experiment: run {number} of {len(planned_runs)}: {which}")
            # Looked at once: checking an artifact again for every run that shares it would take longer than some
            # stages.
            todo = [p for p in run.plan(root, command) if p.ready().artifact.key not in done]
            state = outcome(submit(todo, set()))
            if not state.is_completed():
                return state
            done |= {planned.ready().artifact.key for planned in todo}
        folder = conclude(config, root, command)
    except (FileSystemError, UserError) as error:
        return failed(error)
    return Completed(message=str(folder))
