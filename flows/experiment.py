"""`geomim experiment gain`: the pipeline once for every arm, seed and share of labels, then the comparison.

Each run is the ordinary stages under their own keys: what is cached is not run again, and a killed experiment goes on.
"""

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, Failed, State

from flows.pipeline import TASKS
from flows.runner import ROOT, run_tasks
from tasks.config import PipelineConfig
from tasks.errors import UserError
from tasks.experiment.plan import runs
from tasks.experiment.run import REPORT, steps_of
from tasks.experiment.run import conclude as gather
from tasks.progress import say
from tasks.task import show_pictures


@task(name="conclude")
def conclude(config: PipelineConfig, root: Path, command: str) -> Path:
    """The folder of the experiment's artifact; its report and picture are left in Prefect."""
    artifact = gather(config, root, command)
    create_markdown_artifact(key="experiment-gain-report", markdown=(artifact.path / REPORT).read_text())
    show_pictures(artifact)
    return artifact.path


@flow(name="experiment-gain")
def experiment_gain(config: PipelineConfig, root: Path = ROOT, command: str = "experiment-gain") -> State:
    """Does pretraining pay? Every arm with every seed at every share of the labels."""
    root = root.resolve()
    made, everything = set(), list(runs(config))
    for number, run in enumerate(everything, 1):
        try:
            steps = steps_of(run, root)
        except UserError as error:
            return Failed(message=str(error))
        say(f"experiment: run {number} of {len(everything)}: {run.arm}, {run.fraction:.0%} of labels, seed {run.seed}")
        # Looked at once: checking an artifact again for every run that shares it would take longer than some stages.
        todo = [name for name, step in steps.items() if step.artifact.key not in made]
        state = run_tasks([TASKS[name] for name in todo], run.config, root)
        if state.is_failed():
            return state
        made |= {step.artifact.key for step in steps.values()}
    try:
        folder = conclude(config, root, command)
    except UserError as error:
        return Failed(message=str(error))
    return Completed(message=str(folder))
