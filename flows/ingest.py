"""The Prefect flow of the ingest stage."""

from pathlib import Path

from prefect import flow
from prefect.states import State

from flows.runner import ROOT, run_tasks
from tasks.config import PipelineConfig
from tasks.ingest.task import ingest as ingest_task


@flow(name="ingest")
def ingest(config: PipelineConfig, root: Path = ROOT) -> State:
    """Check the dataroot and write index.zarr."""
    return run_tasks([ingest_task], config, root)
