"""Where the stages of a run compute, if not on the machine that runs the flow."""

import re
from typing import Literal

from pydantic import Field, model_validator

from common.settings import Settings

# Runner -> what its addresses look like, and one. Ray takes others too, and at those waits for ever where nobody is.
ADDRESSES = {"dask": (r"(tcp|tls|ucx|wss?)://.+:\d+", "tcp://HOST:8786"), "ray": (r"ray://.+:\d+", "ray://HOST:10001")}


class ClusterConfig(Settings):
    """A Dask or Ray cluster whose processes take the stages of a run (docs/cluster.md)."""

    runner: Literal["dask", "ray"] = Field("dask", description="Which of the two, by Prefect's task runner for it.")
    address: str | None = Field(
        None,
        description="Of its scheduler (tcp://HOST:8786) or head (ray://HOST:10001); none: one here, for the run.",
    )
    workers: int = Field(2, description="Tasks that share the parts of a stage; processes of a local cluster.", ge=1)

    @model_validator(mode="after")
    def _can_be_reached(self) -> "ClusterConfig":
        pattern, example = ADDRESSES[self.runner]
        if self.address is not None and not re.fullmatch(pattern, self.address):
            raise ValueError(f"address {self.address} is none of a {self.runner.capitalize()} cluster: write {example}")
        return self
