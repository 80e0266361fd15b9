"""`geomim experiment gain`: the pipeline once for every arm, seed and share of labels, then the comparison.

Each run is the ordinary stages under their own keys: what is cached is not run again, and a killed experiment goes on.
"""

from itertools import groupby
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, State

from common.errors import FileSystemError, UserError
from common.progress import say
from flows.cluster import cluster_of
from flows.experiment.artifact import REPORT, gather
from flows.experiment.plan import runs
from flows.in_prefect import show_pictures
from flows.pipeline import ROOT, failed, outcome, submit
from flows.stage_task import without_tracebacks
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
    done: set[str] = set()  # keys
    try:
        root = usable_root(root).resolve()
        # The arms of one comparison at the same time: a killed experiment leaves whole ones behind.
        comparisons = [list(arms) for _, arms in groupby(runs(config), lambda run: (run.fraction, run.seed))]
        with cluster_of(config.cluster) as cluster:
            for number, arms in enumerate(comparisons, 1):
                which = f"{arms[0].fraction:.0%} of labels, seed {arms[0].seed}, {len(arms)} arms"
                say(f"experiment: comparison {number} of {len(comparisons)}: {which}")
                # Each artifact once: to check it again for every run that shares it would take longer than some stages.
                planned = {p.ready().artifact.key: p for run in arms for p in run.plan(root, command)}
                todo = [p for key, p in planned.items() if key not in done]
                state = outcome(submit(todo, set(), cluster))
                if not state.is_completed():
                    return state
                done |= set(planned)
        folder = conclude(config, root, command)
    except (FileSystemError, UserError) as error:
        return failed(error)
    return Completed(message=str(folder))
