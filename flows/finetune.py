"""The Prefect flow of the finetune stage."""

from pathlib import Path

from prefect import flow
from prefect.states import State

from flows.runner import ROOT, run_tasks
from tasks.config import PipelineConfig
from tasks.finetune.task import finetune as finetune_task


@flow(name="finetune")
def finetune(config: PipelineConfig, root: Path = ROOT) -> State:
    """Finetune a camera detector, with and without pretraining, and evaluate both."""
    return run_tasks([finetune_task], config, root)
