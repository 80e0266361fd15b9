"""The stages of a run on a Dask or Ray cluster of two processes, one of which is killed: the same bytes come out."""

import importlib.util

import numpy as np
import psutil
import pytest

from children import children_with
from contents import contents_of
from driver import wait_for
from storage.artifact import Artifact
from storage.leases import leases_folder

pytestmark = pytest.mark.e2e

SMALL_PARTS = ["--set", "teacher.part_size=1", "--set", "depth.part=1"]


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


CLUSTER = {
    "dask": pytest.param("dask", "spawn_main", marks=needs("prefect_dask")),
    "ray": pytest.param("ray", "ray::", marks=needs("prefect_ray")),
}


@pytest.mark.parametrize(("runner", "process"), CLUSTER.values(), ids=CLUSTER)
def test_a_killed_process_of_a_cluster_costs_its_part(cli, runner, process):
    stages = ("teacher", "depth")
    artifacts = {stage: Artifact(cli.root, stage, cli.status()[stage]["key"]) for stage in stages}
    expected = {stage: contents_of(artifact.path) for stage, artifact in artifacts.items()}
    for artifact in artifacts.values():
        artifact.remove()
    teacher = artifacts["teacher"]
    running = cli.start("run", "--to", "depth", "--set", f"cluster.runner={runner}", *SMALL_PARTS)
    wait_for(lambda: running.poll() is not None or (teacher.progress() or (0, 0))[0] >= 2, every=0.005)
    victim = wait_for(lambda: running.poll() is not None or holder_of_a_part(running.pid, teacher), every=0.005)
    assert process in " ".join(victim.cmdline())
    victim.kill()
    output, _ = running.communicate(timeout=300)
    assert running.returncode == 0, output
    assert "Traceback" not in output
    for stage, artifact in artifacts.items():
        assert artifact.is_intact()
        found = contents_of(artifact.path)
        for name in expected[stage].keys() - {f"{store.name}/done" for store in artifact.path.glob("*.zarr")}:
            np.testing.assert_array_equal(found[name], expected[stage][name], err_msg=name)


def holder_of_a_part(command: int, artifact: Artifact) -> psutil.Process | None:
    """The cluster's process under which the stage runs that works on a part."""
    for child in children_with("tasks.engine.child", psutil.Process(command)):
        for lease in leases_folder(artifact.path).glob("*"):
            if f'"pid": {child.pid},' in lease.read_text():
                return child.parent()
    return None
