"""The Prefect flow of the fit stage."""

from pathlib import Path

from prefect import flow
from prefect.states import State

from flows.runner import ROOT, run_tasks
from tasks.config import PipelineConfig
from tasks.teacher.task import fit as fit_task


@flow(name="fit")
def fit(config: PipelineConfig, root: Path = ROOT) -> State:
    """Train the LiDAR detector whose features the teacher stage caches."""
    return run_tasks([fit_task], config, root)
