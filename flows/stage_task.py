"""How a step becomes a Prefect task: its key is the cache key, and a hit counts only while the store holds it."""

import logging
from collections.abc import Mapping
from typing import Any

from prefect import Task, get_run_logger, task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.runtime import task_run
from prefect.states import State

from common.errors import StageFailed, UserError
from flows.in_prefect import Progress, show
from flows.room import ROOM, cores_of
from tasks.engine.child import Bug, run_in_child
from tasks.engine.config import PipelineConfig
from tasks.engine.dataroot import ensure_dataroot
from tasks.engine.stage import STAGES, Step


def stage_task(name: str) -> Task:
    """The Prefect task of a stage: `task(step, key, force, helps)` returns {"stage", "key", "path"}.

    The step runs in a child process whose lines go to the run's log. A user's mistake and a bug are final; a process
    that was killed is tried once more, going on from where it stopped, forced or not. (A RETURNED Failed state would
    not do: Prefect 3.8 stores it under the cache key, and the next try finds it there as a hit.)

    helps: one of several tasks on a stage in parts, beside the one that tells of it.
    """

    @task(
        name=name,
        description=STAGES[name].title,
        tags=["geomim", "device"] if STAGES[name].on_device else ["geomim"],
        task_run_name=f"{name} {{key:.16}}",
        cache_policy=CacheKeyFnPolicy(cache_key_fn=lambda _, parameters: f"geomim-{parameters['key']}"),
        persist_result=True,
        result_serializer="json",
        retries=1,
        retry_delay_seconds=5,
        retry_condition_fn=lambda _task, _run, state: (
            not isinstance(state.result(raise_on_failure=False), UserError | Bug)
        ),
    )
    def run(step: Mapping[str, Any], key: str, force: bool = False, helps: bool = False) -> dict[str, Any]:
        return run_step(Step.from_json(step), key, force, helps)

    return run


def run_step(step: Step, key: str, force: bool, helps: bool) -> dict[str, Any]:
    """What the task does. A function of the module, by whose name a cluster's processes find it: the task itself is
    sent to them."""
    name, log = step.stage.name, get_run_logger()
    resume = task_run.run_count > 1 and not step.artifact.has_manifest()
    progress = Progress(name)

    def relay(line: str) -> None:
        log.info("%s", line)
        if not helps:
            progress(line)

    with ROOM.taken(cores_of(step)):
        run_in_child(step, force, relay, resume)
    if not helps:
        progress.end()
        show(step)
    return {"stage": name, "key": key, "path": str(step.artifact.path)}


TASKS: dict[str, Task] = {name: stage_task(name) for name in STAGES}


@task(name="simulate", tags=["geomim"])
def simulate(config: PipelineConfig) -> None:
    """Write the config's simulated world where it is not there."""
    ensure_dataroot(config)


def sentence(state: State) -> str:
    """Why a stage's task did not complete."""
    error = state.result(raise_on_failure=False)
    return str(error) if isinstance(error, UserError | StageFailed) else state.message or state.name or state.type


def without_tracebacks() -> None:
    """A user's mistake and a failed child say all there is to say in their sentence: keep Prefect's log to that."""
    logging.getLogger("prefect.task_runs").addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], UserError | StageFailed):
        record.exc_info = record.exc_text = None
    return True
