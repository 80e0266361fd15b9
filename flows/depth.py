"""The Prefect flow of the depth stage."""

from pathlib import Path

from prefect import flow
from prefect.states import State

from flows.runner import ROOT, run_tasks
from tasks.config import PipelineConfig
from tasks.depth.task import depth as depth_task


@flow(name="depth")
def depth(config: PipelineConfig, root: Path = ROOT) -> State:
    """Project the LiDAR points of every sample into its cameras."""
    return run_tasks([depth_task], config, root)
