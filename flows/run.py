"""`geomim run`, `geomim <stage>` and `geomim experiment gain`: what happens between the command line and the stages."""

import json
import logging
import shlex
import sys
from pathlib import Path

from flows.server import prefect_server
from flows.show import console, plan_table, print_json, size
from tasks.child import run_in_child
from tasks.config import PipelineConfig
from tasks.errors import DataError, UserError
from tasks.experiment.plan import runs
from tasks.experiment.run import REPORT, RESULT, conclude, steps_of
from tasks.plan import Planned, make_plan, select, stage_named
from tasks.stage import why_inactive


def run_pipeline(
    config: PipelineConfig, root: Path, first: str | None, last: str | None, forced: list[str], dry_run: bool
) -> None:
    """Plan, show the plan, and run what is not cached as a Prefect flow. A run without work starts no server."""
    root = root.resolve()
    for name in (*forced, *(n for n in (first, last) if n)):
        stage_named(name)
    if not dry_run:
        ensure_dataroot(config)
    plan = make_plan(config, root, forced)
    chosen = select(plan, first, last)
    if chosen[0].step is None and not (dry_run and config.simulate):
        raise UserError(chosen[0].why)
    plan_table(chosen)
    if dry_run:
        return
    work = [planned for planned in chosen if planned.state != "cached"]
    if work:
        for planned in work:
            if planned.stage.name in forced:
                planned.step.artifact.remove()
        with prefect_server(root / ".prefect"):
            run_flow(config, root, [planned.stage.name for planned in chosen])
    show_results(make_plan(config, root), [planned.stage.name for planned in chosen])


def run_flow(config: PipelineConfig, root: Path, stages: list[str]) -> None:
    """Run the pipeline's flow in this process. Raises DataError with the failed stage's sentence."""
    from flows.pipeline import pipeline

    logging.getLogger("prefect.task_runs").setLevel(logging.INFO)
    state = pipeline(config=config, root=root, stages=stages, return_state=True)
    if not state.is_completed():
        raise DataError(state.message or f"the run ended as {state.name}")


def run_one(config: PipelineConfig, root: Path, name: str, force: bool) -> None:
    """Run one stage without a server, through the same function as the flow does."""
    root = root.resolve()
    if name == "ingest":
        ensure_dataroot(config)
    planned = next((p for p in make_plan(config, root) if p.stage.name == name), None)
    if planned is None:
        raise UserError(f"{name}: not a stage of this config; {why_inactive(config, name)}")
    if planned.step is None:
        raise UserError(planned.why)
    if force:
        planned.step.artifact.remove()
    if force or planned.state != "cached":
        run_in_child(config, root, name)
    elif name == "ingest" and config.ingest.deep:  # an index that is there says nothing of its files today
        from storage.index import Index
        from tasks.ingest.run import check_index

        index = Index.open(planned.step.artifact.path / "index.zarr")
        check_index(index, config.dataroot, config.ingest, planned.step.artifact.path.parent)
    show_results(make_plan(config, root), [name])


def run_gain(config: PipelineConfig, root: Path, as_json: bool) -> None:
    """Run what the experiment lacks as a Prefect flow, and print its result. Without a gap it starts no server."""
    root, command = root.resolve(), shlex.join(["geomim", *sys.argv[1:]])
    ensure_dataroot(config)
    if not all(step.artifact.is_whole() for run in runs(config) for step in steps_of(run, root).values()):
        with prefect_server(root / ".prefect"):
            from flows.experiment import experiment_gain

            logging.getLogger("prefect.task_runs").setLevel(logging.INFO)
            state = experiment_gain(config=config, root=root, command=command, return_state=True)
            if not state.is_completed():
                raise DataError(state.message or f"the experiment ended as {state.name}")
    folder = conclude(config, root, command).path
    if as_json:
        print_json(json.loads((folder / RESULT).read_text()) | {"path": str(folder)})
        return
    from rich.markdown import Markdown

    out = console()
    out.print(Markdown((folder / REPORT).read_text()))
    out.print(folder, soft_wrap=True)


def ensure_dataroot(config: PipelineConfig) -> None:
    """Simulate the world where the config has one and its dataroot is not there."""
    if config.simulate is None or config.dataroot is None:
        return
    from tasks.simulate.write import simulate

    simulate(config.simulate, config.dataroot)


def show_results(plan: list[Planned], names: list[str]) -> None:
    """Each stage's folder, and the report of the last stage that wrote one."""
    out = console()
    report = None
    for planned in plan:
        if planned.stage.name not in names or planned.state != "cached":
            continue
        artifact = planned.step.artifact
        manifest = artifact.manifest()
        facts = manifest.summary
        scores = "".join(f"  {name} {facts[name]:.4f}" for name in ("mAP", "NDS") if name in facts)
        out.print(
            f"[green]{planned.stage.name:9}[/] {size(manifest.bytes):>9} {manifest.seconds:8.1f} s"
            f"{scores}  {artifact.path}",
            soft_wrap=True,
        )
        if (artifact.path / "report.md").is_file():
            report = artifact.path / "report.md"
    if report:
        from rich.markdown import Markdown

        out.print()
        out.print(Markdown(report.read_text()))
