"""The pipeline as Prefect flows: the whole of it, and one flow a stage, all from the one table of stages.

    ingest -+-> (fit ->) teacher -+-> pretrain -> finetune -> evaluate
            +-> depth ------------+

What does not depend on each other runs at the same time, as far as the cores go (`flows/room.py`) and no two on one GPU
(`tasks/engine/device_lock.py`). The artifact store is the truth: Prefect schedules, retries and shows.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

from prefect import Flow, flow
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed, State

from common.errors import DataError, FileSystemError, UserError
from flows.cluster import Cluster, cluster_of
from flows.in_prefect import show_run
from flows.stage_task import TASKS, sentence, simulate, without_tracebacks
from storage.artifact import Artifact
from storage.sentences import in_sentences
from tasks.engine.child import ended_by_cancelling
from tasks.engine.config import PipelineConfig
from tasks.engine.dag import why_left_out
from tasks.engine.plan import Planned, is_named, make_plan, with_inputs_checked
from tasks.engine.roots import usable_root
from tasks.engine.stage import STAGES, StageName

ROOT = Path("artifacts")
MISTAKE = "Mistake"  # the name of a failed state for which the user has a remedy


@flow(name="pipeline")
def pipeline(
    config: PipelineConfig,
    root: Path = ROOT,
    stages: list[StageName] | None = None,
    force: list[StageName] | None = None,
) -> State:
    """Run the stages that are not cached.

    stages: restricts the run to some of them. force: stages to run although they are cached.
    """
    return run_stages(config, root, stages, force or ())


def stage_flow(name: StageName) -> Flow:
    """The flow of one stage."""

    @flow(name=name, description=STAGES[name].title)
    def run(config: PipelineConfig, root: Path = ROOT, force: bool = False) -> State:
        return run_stages(config, root, [name], [name] if force else ())

    return run


# The stages that have a command have a flow: an attribute of this module, which `prefect.yaml` names.
FLOWS: dict[str, Flow] = {stage.name: stage_flow(stage.name) for stage in STAGES.values() if stage.is_command}
globals().update(FLOWS)


def run_stages(
    config: PipelineConfig, root: Path, names: Iterable[StageName] | None = None, force: Iterable[StageName] = ()
) -> State:
    """Completed with a word a stage, or Failed with the sentence of the first stage that failed."""
    without_tracebacks()
    forced = set(force)
    try:
        with in_sentences():
            root = usable_root(root).resolve()
            chosen = checked_plan(config, root, names, forced)
    except (FileSystemError, UserError) as error:
        return failed(error)
    try:
        with cluster_of(config.cluster) as cluster, ended_by_cancelling():
            futures = submit(chosen, forced, cluster)
            ended = outcome(futures)
    except UserError as error:
        return failed(error)
    show_run(config, root, chosen, {name: future.state for name, future in futures})
    return ended


def failed(error: FileSystemError | UserError) -> State:
    """A failed state with the error's sentence."""
    mistake = isinstance(error, UserError) and not isinstance(error, DataError)
    return Failed(message=str(error), name=MISTAKE if mistake else "Failed")


def checked_plan(
    config: PipelineConfig, root: Path, names: Iterable[StageName] | None, forced: set[StageName]
) -> list[Planned]:
    """The nodes of a run, its world simulated where it is not there. Raises UserError for what cannot be run."""
    if config.simulate is not None and (names is None or "ingest" in names):
        simulate(config)
    plan = make_plan(config, root, forced, command="a Prefect flow")
    for name in {*(names or ()), *forced}:
        if not any(is_named(planned.node, [name]) for planned in plan):
            raise UserError(f"{name}: not a stage of this config; {why_left_out(config, name)}")
    chosen = [planned for planned in plan if names is None or is_named(planned.node, names)]
    if not chosen:
        raise UserError("stages: is an empty list; name stages, or leave it out for all")
    for name in forced:
        if not any(is_named(planned.node, [name]) for planned in chosen):
            raise UserError(f"force: {name} is not among the stages of this run; name it in stages too")
    chosen[0].ready()
    return with_inputs_checked(chosen)


def submit(
    chosen: list[Planned], forced: Collection[str], cluster: Cluster | None = None
) -> list[tuple[str, PrefectFuture]]:
    """Every step's task, each behind those whose artifacts it reads.

    cluster: takes them in place of the flow's own runner; of a stage in parts it gets several tasks, which share them.
    Only the first of these counts: it ends when all parts are there, whoever wrote them.
    """
    futures: dict[Artifact, PrefectFuture] = {}
    out: list[tuple[str, PrefectFuture]] = []
    for planned in chosen:
        step = planned.ready()
        wait_for = [futures[needed] for needed in step.inputs.artifacts.values() if needed in futures]
        run = TASKS[planned.stage.name].with_options(refresh_cache=planned.state != "cached")
        again = is_named(planned.node, forced)
        given = {"step": step.as_json(), "key": step.artifact.key, "force": again}
        if cluster is None:
            future = run.submit(**given, wait_for=wait_for)
        else:
            future = cluster.runner.submit(run, given | {"helps": False}, wait_for)
            if planned.stage.in_parts and planned.state != "cached":
                for _ in range(cluster.workers - 1):
                    cluster.runner.submit(run, given | {"force": False, "helps": True}, wait_for)
        futures[step.artifact] = future
        out.append((planned.name, future))
    return out


def outcome(futures: list[tuple[str, PrefectFuture]]) -> State:
    """The flow's state when all tasks have ended."""
    for _, future in futures:
        future.wait()
    states = [(name, future.state) for name, future in futures]
    for name, state in states:
        if state.is_failed() or state.is_crashed():
            error = state.result(raise_on_failure=False)
            mistake = isinstance(error, UserError) and not isinstance(error, DataError)
            return Failed(message=f"{name}: {sentence(state)}", name=MISTAKE if mistake else "Failed")
    return Completed(message=", ".join(f"{name} {(state.name or state.type).lower()}" for name, state in states))
