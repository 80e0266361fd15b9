"""The Prefect flow of the teacher stage."""

from pathlib import Path

from prefect import flow
from prefect.states import State

from flows.runner import ROOT, run_tasks
from tasks.config import PipelineConfig
from tasks.teacher.task import teacher as teacher_task


@flow(name="teacher")
def teacher(config: PipelineConfig, root: Path = ROOT) -> State:
    """Cache the LiDAR teacher's BEV features of every sample."""
    return run_tasks([teacher_task], config, root)
