"""How a stage becomes a Prefect task: its key is the cache key, and a hit counts only while the store holds it."""

import base64
import logging
from pathlib import Path
from typing import Any

from prefect import Task, get_run_logger, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.states import State

from storage.artifact import Artifact, Manifest
from tasks.child import StageFailed, run_in_child
from tasks.config import PipelineConfig
from tasks.errors import UserError
from tasks.plan import make_plan, stage_named
from tasks.stage import Step, why_inactive

LARGEST_PICTURE = 4_000_000  # bytes; a picture is stored inside the server's database


def stage_task(name: str) -> Task:
    """The Prefect task of a stage: `task(config, root, key)` returns {"stage", "key", "path"}.

    The stage runs in a child process whose lines go to the run's log. A user's mistake raises UserError and is final;
    anything else is tried once more, going on from where it stopped. (A RETURNED Failed state would not do: Prefect
    3.8 stores it under the cache key, and the next try finds it there as a hit.)
    """

    @task(
        name=name,
        description=stage_named(name).title,
        cache_policy=CacheKeyFnPolicy(cache_key_fn=lambda _, parameters: f"geomim-{parameters['key']}"),
        persist_result=True,
        result_serializer="json",
        retries=1,
        retry_condition_fn=lambda _task, _run, state: not isinstance(state.result(raise_on_failure=False), UserError),
    )
    def run(config: PipelineConfig, root: Path, key: str) -> dict[str, Any]:
        log = get_run_logger()
        step = find_step(config, root, name)
        if not step.artifact.is_whole():
            run_in_child(config, root, name, relay=lambda line: log.info("%s", line))
        show(step)
        return {"stage": name, "key": key, "path": str(step.artifact.path)}

    return run


def run_stage(run: Task, config: PipelineConfig, root: Path) -> State:
    """Run a stage's task from a flow; a cached state whose artifact is gone or damaged is refreshed."""
    logging.getLogger("prefect.task_runs").addFilter(_without_traceback)
    step = find_step(config, root, run.name)
    return run.with_options(refresh_cache=not step.artifact.is_whole())(
        config=config, root=root, key=step.artifact.key, return_state=True
    )


def sentence(state: State) -> str:
    """Why a stage's task did not complete."""
    error = state.result(raise_on_failure=False)
    return str(error) if isinstance(error, UserError | StageFailed) else state.message or state.name


def _without_traceback(record: logging.LogRecord) -> bool:
    """A user's mistake and a killed child say all there is to say in their sentence."""
    if record.exc_info and isinstance(record.exc_info[1], UserError | StageFailed):
        record.exc_info = record.exc_text = None
    return True


def find_step(config: PipelineConfig, root: Path, name: str) -> Step:
    """The step of a stage in this config's plan. Raises UserError where there is no dataroot or no such stage in it."""
    for planned in make_plan(config, root):
        if planned.stage.name == name:
            if planned.step is None:
                raise UserError(planned.why)
            return planned.step
    raise UserError(f"{name}: not a stage of this config; {why_inactive(config, name)}")


def show(step: Step) -> None:
    """Leave a markdown summary, a table and the pictures of an artifact in Prefect."""
    name, manifest = step.stage.name, step.artifact.manifest()
    report = step.artifact.path / "report.md"
    create_markdown_artifact(
        key=f"{name}-summary",
        description=f"{name} {step.artifact.key[:16]}",
        markdown=markdown(step, manifest) + (f"\n\n{report.read_text()}" if report.is_file() else ""),
    )
    rows = [{"field": field, "value": value} for field, value in flat(manifest.summary).items()]
    create_table_artifact(key=f"{name}-table", description=f"{name} {step.artifact.key[:16]}", table=rows)
    show_pictures(step.artifact)


def show_pictures(artifact: Artifact) -> None:
    """Leave the pictures of an artifact in Prefect."""
    name = artifact.stage
    for picture in sorted(artifact.path.glob("*.png")):
        if picture.stat().st_size <= LARGEST_PICTURE:
            data = base64.b64encode(picture.read_bytes()).decode()
            create_image_artifact(
                key=f"{name}-{picture.stem.replace('_', '-')}".lower(),
                image_url=f"data:image/png;base64,{data}",
                description=f"{name} {artifact.key[:16]}: {picture.name}",
            )


def markdown(step: Step, manifest: Manifest) -> str:
    """The head of a stage's summary."""
    return (
        f"# {step.stage.name}: {step.stage.title}\n\n"
        f"- key `{step.artifact.key}`\n- folder `{step.artifact.path}`\n"
        f"- {manifest.bytes / 1e6:.1f} MB in {manifest.seconds:.1f} s"
    )


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names joined by dots."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return out
