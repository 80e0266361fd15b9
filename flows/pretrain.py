"""The Prefect flow of the pretrain stage."""

from pathlib import Path

from prefect import flow
from prefect.states import State

from flows.runner import ROOT, run_tasks
from tasks.config import PipelineConfig
from tasks.pretrain.task import pretrain as pretrain_task


@flow(name="pretrain")
def pretrain(config: PipelineConfig, root: Path = ROOT) -> State:
    """Pretrain the camera backbone on the cached features."""
    return run_tasks([pretrain_task], config, root)
