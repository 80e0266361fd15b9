"""A stage in parts by one process, as tasks/engine/execute.py runs it, for tests that have no `Step`."""

from types import ModuleType
from typing import Any

from storage.leases import Leases, leases_folder


def run_whole(stage: ModuleType, config: Any, inputs: Any, artifact: Any) -> dict[str, Any]:
    """stage: the module with `write` and `run`. The summary."""
    with Leases(leases_folder(artifact.path)) as leases:
        more = stage.write(config, inputs, artifact, leases)
    return stage.run(config, inputs, artifact) | more
