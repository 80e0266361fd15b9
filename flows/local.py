"""Runs that the command line starts on this machine: the pipeline, one stage, or the gain experiment.

The pipeline and the experiment run as Prefect flows, on a server of their own or the user's; one stage needs none.
"""

import json
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import DataError, UserError
from common.launcher import launched
from flows.experiment.artifact import REPORT, RESULT, gather
from flows.experiment.plan import runs
from flows.server import prefect_server
from flows.show import console, plan_table, print_json, show_results
from storage.artifact import Artifact
from tasks.engine.child import ended_by_ctrl_c, run_in_child
from tasks.engine.config import PipelineConfig
from tasks.engine.dag import why_left_out
from tasks.engine.dataroot import ensure_dataroot
from tasks.engine.execute import execute
from tasks.engine.plan import is_named, make_plan, select, stage_named, with_inputs_checked
from tasks.engine.roots import usable_root
from tasks.engine.stage import StageName

if TYPE_CHECKING:
    from prefect.states import State


def run_pipeline(
    config: PipelineConfig, root: Path, first: str | None, last: str | None, forced: list[str], dry_run: bool
) -> None:
    """Plan, show the plan, and run what is not cached as a Prefect flow. A run without work starts no server."""
    root = usable_root(root, to_write=not dry_run)
    for name in (*forced, *(n for n in (first, last) if n)):
        stage_named(name)
    if not dry_run:
        ensure_dataroot(config)
    chosen = select(make_plan(config, root, forced), first, last)
    for name in forced:
        if not any(is_named(planned.node, [name]) for planned in chosen):
            why = why_left_out(config, name) or f"it is outside of --from {first or 'ingest'} --to {last or 'evaluate'}"
            raise UserError(f"--force {name}: this run has no such stage: {why}")
    if not (dry_run and config.simulate):
        chosen[0].ready()
    chosen = with_inputs_checked(chosen)
    plan_table(chosen)
    if dry_run:
        return
    stages = list(dict.fromkeys(planned.stage.name for planned in chosen))
    if any(planned.state != "cached" for planned in chosen):
        with prefect_server(root / ".prefect"), ended_by_ctrl_c():
            _run_flow(config, root, stages, forced)
    show_results(config, make_plan(config, root), {planned.name for planned in chosen})


def run_stage(config: PipelineConfig, root: Path, name: str, force: bool) -> None:
    """Run one stage without a server, through the same function as the flow does."""
    root = usable_root(root)
    if name == "ingest":
        ensure_dataroot(config)
    plan = [p for p in make_plan(config, root, [name] if force else (), _command()) if p.node.command == name]
    if not plan:
        raise UserError(f"{name}: not a stage of this config; {why_left_out(config, name)}")
    # Launched ranks train in the processes that their launcher started, and ends.
    run = execute if launched() else run_in_child
    for planned in plan:
        run(planned.ready(), force)
    if name == "ingest" and config.ingest.deep and plan[0].state == "cached":
        _look_again(config, plan[0].ready().artifact)
    show_results(config, make_plan(config, root), {planned.name for planned in plan})


def run_gain(config: PipelineConfig, root: Path, as_json: bool) -> None:
    """Run what the experiment lacks as a Prefect flow, and print its result. Without a gap it starts no server."""
    root, command = usable_root(root), _command()
    ensure_dataroot(config)
    if not all(step.artifact.is_intact() for run in runs(config) for step in run.steps(root).values()):
        with prefect_server(root / ".prefect"), ended_by_ctrl_c():
            from flows.experiment.flow import experiment_gain

            logging.getLogger("prefect.task_runs").setLevel(logging.INFO)
            _raise_failure(experiment_gain(config=config, root=root, command=command, return_state=True))
    folder = gather(config, root, command).path
    if as_json:
        print_json(json.loads((folder / RESULT).read_text()) | {"path": str(folder)})
        return
    from rich.markdown import Markdown

    out = console()
    out.print(Markdown((folder / REPORT).read_text()))
    out.print(folder, soft_wrap=True)


def _run_flow(config: PipelineConfig, root: Path, stages: Sequence[StageName], forced: Sequence[str]) -> None:
    """Run the pipeline's flow in this process. Raises UserError or DataError with the failed stage's sentence."""
    from flows.pipeline import pipeline

    logging.getLogger("prefect.task_runs").setLevel(logging.INFO)
    _raise_failure(pipeline(config=config, root=root, stages=stages, force=forced, return_state=True))


def _raise_failure(state: "State") -> None:
    """Raise the sentence of a flow's state, if it did not complete."""
    from flows.pipeline import MISTAKE

    if not state.is_completed():
        raise (UserError if state.name == MISTAKE else DataError)(state.message or f"the run ended as {state.name}")


def _look_again(config: PipelineConfig, ingested: Artifact) -> None:
    """`ingest.deep` for an index that is there: it says nothing of its files today. Raises DataError with a report."""
    from storage.index import Index
    from tasks.ingest.run import check_index

    assert config.dataroot is not None  # a step was planned on it
    check_index(Index.open(ingested.path / "index.zarr"), config.dataroot, config.ingest, ingested.path.parent)


def _command() -> str:
    """What the user typed, for the record."""
    return shlex.join(["geomim", *sys.argv[1:]])
