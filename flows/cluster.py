"""A Dask or Ray cluster for the stages of a run, by Prefect's task runners: they place work, leases share it out."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from prefect.task_runners import TaskRunner

from common.errors import UserError
from tasks.engine.cluster import ClusterConfig


class Cluster(NamedTuple):
    """What takes stages, and how many tasks share one that is in parts."""

    runner: TaskRunner
    workers: int


@contextmanager
def cluster_of(config: ClusterConfig | None) -> Iterator[Cluster | None]:
    """The started cluster, None without one: then tasks go to the flow's own runner.

    Raises UserError where its packages are not installed or nobody answers at its address.
    """
    if config is None:
        yield None
        return
    for name in ("distributed", "prefect.task_runner", "ray.client_builder"):  # which tell of every connection
        logging.getLogger(name).setLevel(logging.WARNING)
    with ExitStack() as stack:
        try:
            with warnings.catch_warnings(action="ignore"):  # Ray's, of what the sentence below says
                runner: Any = stack.enter_context(_runner(config))
            if config.runner == "dask":
                runner.client  # noqa: B018 (its first use connects: now, and not at the first stage)
        except OSError as error:
            raise UserError(
                f"cluster.address is {config.address}, where no {config.runner.capitalize()} cluster answers "
                f"({str(error).splitlines()[0]}); start one there, or leave the address out for a local one"
            ) from None
        yield Cluster(runner, config.workers)


def _runner(config: ClusterConfig) -> TaskRunner:
    try:
        if config.runner == "dask":
            from prefect_dask import DaskTaskRunner

            # Of a process that was killed the others may print tracebacks: its work is begun again, and an error of a
            # stage's comes back as its own.
            quiet = {"dashboard_address": None, "silence_logs": logging.CRITICAL}
            local = {"n_workers": config.workers, "threads_per_worker": 1, **quiet}
            return DaskTaskRunner(address=config.address, cluster_kwargs=None if config.address else local)
        from prefect_ray import RayTaskRunner

        # A stage counts as one of Ray's CPUs, whatever it computes with: so many of them run at once.
        started = {"num_cpus": max(config.workers, 2), "include_dashboard": False}
        return RayTaskRunner(address=config.address, init_kwargs={} if config.address else started)
    except ImportError as error:
        raise UserError(
            f"cluster.runner is {config.runner}, and {error.name} is not installed; "
            f"docs/cluster.md has the command that installs it"
        ) from None
