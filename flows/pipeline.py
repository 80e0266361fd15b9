"""The whole pipeline as one Prefect flow: ingest -> (fit ->) teacher, depth -> pretrain -> finetune."""

from pathlib import Path

from prefect import flow
from prefect.states import State

from flows.runner import ROOT, run_tasks
from tasks.config import PipelineConfig
from tasks.depth.task import depth
from tasks.finetune.task import finetune
from tasks.ingest.task import ingest
from tasks.pretrain.task import pretrain
from tasks.stage import active_stages
from tasks.teacher.task import fit, teacher

TASKS = {task.name: task for task in (ingest, fit, teacher, depth, pretrain, finetune)}


@flow(name="pipeline")
def pipeline(config: PipelineConfig, root: Path = ROOT, stages: list[str] | None = None) -> State:
    """Run the stages in order; what is cached is not run again. `stages` restricts the run to some of them."""
    chosen = [stage.name for stage in active_stages(config) if stages is None or stage.name in stages]
    return run_tasks([TASKS[name] for name in chosen], config, root)
