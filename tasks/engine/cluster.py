"""Where the stages of a run compute, if not on the machine that runs the flow."""

from typing import Literal

from pydantic import Field

from common.settings import Settings


class ClusterConfig(Settings):
    """A Dask or Ray cluster whose processes take the stages of a run (docs/cluster.md)."""

    runner: Literal["dask", "ray"] = Field("dask", description="Which of the two, by Prefect's task runner for it.")
    address: str | None = Field(
        None,
        description="Of its scheduler (tcp://HOST:8786) or head (ray://HOST:10001); none: one here, for the run.",
    )
    workers: int = Field(2, description="Tasks that share the parts of a stage; processes of a local cluster.", ge=1)
