"""Two commands on one stage: they share its parts, and one finishes what the other, which was killed, had begun."""

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

from contents import contents_of
from driver import wait_for
from storage.artifact import Artifact
from storage.leases import leases_folder

pytestmark = pytest.mark.e2e

SMALL_PARTS = {"teacher": ["--set", "teacher.part_size=1"], "depth": ["--set", "depth.part=1"]}


@pytest.mark.parametrize(("stage", "killed"), [("teacher", True), ("depth", False)])
def test_two_commands_share_a_stage(cli, stage, killed):
    path = cli.path(stage)
    expected = contents_of(path)
    artifact = Artifact(cli.root, stage, cli.status()[stage]["key"])
    artifact.remove()

    first = cli.start(stage, *SMALL_PARTS[stage])
    wait_for(lambda: (artifact.progress() or (0, 0))[0] >= 1, every=0.002)
    child = psutil.Process(first.pid).children()[0]
    wait_for(lambda: stopped_with_a_part(child, path), every=0.002)
    before, total = artifact.progress()
    second = cli.start(stage, *SMALL_PARTS[stage])
    wait_for(lambda: artifact.progress()[0] >= total - 1 or second.poll() is not None)
    assert cli.status()[stage]["state"] == "running"
    if killed:
        os.kill(child.pid, signal.SIGKILL)
    else:
        child.resume()
    outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [1 if killed else 0, 0], outputs
    assert "was killed by SIGKILL; the same command goes on from there" in outputs[0] or not killed
    assert 1 <= before < total
    assert artifact.is_intact()
    assert not leases_folder(path).exists()
    found = contents_of(path)
    assert found.keys() == expected.keys()
    for name in expected.keys() - {f"{store.name}/done" for store in path.glob("*.zarr")}:  # another number of parts
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def stopped_with_a_part(process: psutil.Process, path: Path) -> bool:
    """Stop a process, unless it is between two parts."""
    process.suspend()
    if not any(leases_folder(path).iterdir()):
        process.resume()
        return False
    return True
