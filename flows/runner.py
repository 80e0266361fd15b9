"""What every flow shares: run tasks in order, stop at the first that fails, and say why in one sentence."""

from pathlib import Path

from prefect import Task
from prefect.states import Completed, Failed, State

from tasks.config import PipelineConfig
from tasks.errors import UserError
from tasks.task import run_stage, sentence

ROOT = Path("artifacts")


def run_tasks(tasks: list[Task], config: PipelineConfig, root: Path) -> State:
    """Completed with one line a stage, or Failed with the sentence of the first stage that failed."""
    root = root.resolve()
    lines = []
    for task in tasks:
        try:
            state = run_stage(task, config, root)
        except UserError as error:
            return Failed(message=f"{task.name}: {error}")
        if not state.is_completed():
            return Failed(message=f"{task.name}: {sentence(state)}")
        lines.append(f"{task.name} {state.name.lower()}")
    return Completed(message=", ".join(lines))
