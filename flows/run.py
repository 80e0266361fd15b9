"""`geomim run`, `geomim <stage>` and `geomim experiment gain`: what happens between the command line and the stages."""

import json
import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import DataError, UserError
from evaluation.table import gain
from flows.experiment.plan import runs
from flows.experiment.run import REPORT, RESULT, conclude, steps_of
from flows.server import prefect_server
from flows.show import console, plan_table, print_json, size
from storage.artifact import Artifact
from tasks.engine.child import run_in_child
from tasks.engine.config import PipelineConfig
from tasks.engine.dag import SCRATCH, why_unwanted
from tasks.engine.dataroot import ensure_dataroot
from tasks.engine.integrity import check_file
from tasks.engine.plan import Planned, is_meant, make_plan, select, stage_named, with_inputs_checked
from tasks.engine.roots import usable_root

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
        if not any(is_meant(planned.node, [name]) for planned in chosen):
            why = why_unwanted(config, name) or f"it is outside of --from {first or 'ingest'} --to {last or 'evaluate'}"
            raise UserError(f"--force {name}: this run has no such stage: {why}")
    if chosen[0].step is None and not (dry_run and config.simulate):
        raise UserError(chosen[0].why)
    chosen = with_inputs_checked(chosen)
    plan_table(chosen)
    if dry_run:
        return
    stages = list(dict.fromkeys(planned.stage.name for planned in chosen))
    if any(planned.state != "cached" for planned in chosen):
        with prefect_server(root / ".prefect"):
            run_flow(config, root, stages, forced)
    show_results(config, make_plan(config, root), {planned.name for planned in chosen})


def run_flow(config: PipelineConfig, root: Path, stages: list[str], forced: list[str]) -> None:
    """Run the pipeline's flow in this process. Raises UserError or DataError with the failed stage's sentence."""
    from flows.pipeline import pipeline

    logging.getLogger("prefect.task_runs").setLevel(logging.INFO)
    raise_failure(pipeline(config=config, root=root, stages=stages, force=forced, return_state=True))


def raise_failure(state: "State") -> None:
    """Raise what the flow's state says, if it did not complete."""
    from flows.pipeline import MISTAKE

    if not state.is_completed():
        raise (UserError if state.name == MISTAKE else DataError)(state.message or f"the run ended as {state.name}")


def run_one(config: PipelineConfig, root: Path, name: str, force: bool) -> None:
    """Run one stage without a server, through the same function as the flow does."""
    root = usable_root(root)
    if name == "ingest":
        ensure_dataroot(config)
    command = shlex.join(["geomim", *sys.argv[1:]])
    plan = [p for p in make_plan(config, root, [name] if force else (), command) if p.node.command == name]
    if not plan:
        raise UserError(f"{name}: not a stage of this config; {why_unwanted(config, name)}")
    for planned in plan:
        if planned.step is None:
            raise UserError(planned.why)
        run_in_child(planned.step, force)
    if name == "ingest" and config.ingest.deep and plan[0].state == "cached":
        look_again(config, plan[0].step.artifact)
    show_results(config, make_plan(config, root), {planned.name for planned in plan})


def look_again(config: PipelineConfig, ingested: Artifact) -> None:
    """`ingest.deep` for an index that is there: it says nothing of its files today. Raises DataError with a report."""
    from storage.index import Index
    from tasks.ingest.run import check_index

    check_index(Index.open(ingested.path / "index.zarr"), config.dataroot, config.ingest, ingested.path.parent)


def run_gain(config: PipelineConfig, root: Path, as_json: bool) -> None:
    """Run what the experiment lacks as a Prefect flow, and print its result. Without a gap it starts no server."""
    root, command = usable_root(root), shlex.join(["geomim", *sys.argv[1:]])
    ensure_dataroot(config)
    if not all(step.artifact.is_whole() for run in runs(config) for step in steps_of(run, root).values()):
        with prefect_server(root / ".prefect"):
            from flows.experiment.flow import experiment_gain

            logging.getLogger("prefect.task_runs").setLevel(logging.INFO)
            raise_failure(experiment_gain(config=config, root=root, command=command, return_state=True))
    folder = conclude(config, root, command).path
    if as_json:
        print_json(json.loads((folder / RESULT).read_text()) | {"path": str(folder)})
        return
    from rich.markdown import Markdown

    out = console()
    out.print(Markdown((folder / REPORT).read_text()))
    out.print(folder, soft_wrap=True)


def show_results(config: PipelineConfig, plan: list[Planned], names: set[str]) -> None:
    """Each node's folder, the report of the detector that the run is about, or else the last, and the gain.

    Raises DataError where what is to be shown is not what was written.
    """
    out = console()
    reports, metrics = {}, {}
    for planned in plan:
        if planned.name not in names or planned.state != "cached":
            continue
        artifact = planned.step.artifact
        manifest = artifact.manifest()
        facts = manifest.summary
        scores = "".join(f"  {name} {facts[name]:.4f}" for name in ("mAP", "NDS") if name in facts)
        out.print(
            f"[green]{planned.name:16}[/] {size(manifest.bytes):>9} {manifest.seconds:8.1f} s{scores}  {artifact.path}",
            soft_wrap=True,
        )
        if (artifact.path / REPORT).is_file():
            reports[planned.name] = artifact.path / REPORT
        if planned.stage.name == "evaluate":
            arm = "scratch" if planned.name.endswith(SCRATCH) else "pretrained"
            metrics[arm] = json.loads(_whole(artifact.path / "metrics.json"))
    if reports:
        from rich.markdown import Markdown

        out.print()
        out.print(Markdown(_whole(reports.get("evaluate") or list(reports.values())[-1])))
        if len(metrics) > 1 and None not in metrics.values():
            out.print(Markdown(gain(metrics, config.finetune.seed)))


def _whole(file: Path) -> str:
    check_file(file, f"{file.name} is to be shown")
    return file.read_text()
