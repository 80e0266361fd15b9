"""The tiny pipeline on an object root, from two machines, while a proxy breaks a third of all requests."""

import os
import signal
import subprocess
from dataclasses import dataclass, field

import numpy as np
import psutil
import pytest

from contents import contents_of
from driver import GEOMIM, Cli, environment, wait_for
from object_roots import s3
from object_store import Faults, credentials, new_bucket, proxy
from storage.mirror import mirror_at
from storage.remote_parts import RemoteParts

__all__ = ["s3"]

pytestmark = pytest.mark.e2e


@dataclass
class Machine(Cli):
    """The command line of one machine, with its own cache."""

    variables: dict = field(default_factory=dict)

    def run(self, *words, code=0):
        done = subprocess.run(
            [str(word) for word in (GEOMIM, *words)],
            env=environment() | self.variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def stage(self, *words, code=0):
        return self.run(*self.command(*words)[1:], code=code)

    def started(self, *words):
        return subprocess.Popen(
            self.command(*words),
            env=environment() | self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


# Found and run by every Python that is started with its folder on the path: processes of one computer are two machines.
ANOTHER_MACHINE = """
import storage.leases, storage.remote_lease
storage.leases.MACHINE = {name!r}
storage.remote_lease.SECONDS_TO_LIVE = 6.0
"""


@pytest.fixture
def faults(s3):
    """A proxy's, and the environment of who goes through it."""
    breaking = Faults(0.33, seed=5)
    with proxy(s3, breaking) as port:
        yield breaking, credentials(port)


@pytest.fixture
def machines(finished, s3, faults, tmp_path):
    """Two, on one empty bucket."""
    url, made = new_bucket(s3), []
    for name in "ab":
        folder = tmp_path / f"machine {name}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(ANOTHER_MACHINE.format(name=name))
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        variables = {"GEOMIM_CACHE": str(tmp_path / name), "GEOMIM_CACHE_GB": "1e-5", "PYTHONPATH": path}
        made.append(Machine(finished[0].dataroot, url, faults[1] | variables))
    return made


def test_two_machines_share_an_object_root(finished, s3, faults, machines, tmp_path, monkeypatch):
    done, _ = finished
    breaking, _ = faults
    a, b = machines
    url = a.root
    for name, value in {**b.variables, **credentials(s3)}.items():  # what this process asks of the root is not broken
        monkeypatch.setenv(name, value)

    # What was made elsewhere is sent. Both machines write parts of what comes next; one is killed in the middle of one,
    # the other takes that over, and is killed while it sends what it finished.
    a.run("push", done.path("teacher"), url, "--inputs")
    path = mirror_at(url).root / "depth" / done.path("depth").name
    parts = RemoteParts(mirror_at(url).remote, "depth", path.name)
    first = a.started("depth")
    child = wait_for(lambda: next(iter(psutil.Process(first.pid).children()), None))
    wait_for(lambda: stopped_with_a_part(child, parts), every=0.01)
    before = len(parts.done())
    second = b.started("depth")
    wait_for(lambda: parts.look() or len(parts.done()) > before)
    killed(first)
    wait_for(lambda: (path / "manifest.json").exists(), every=0.01)
    killed(second)
    assert b.status()["depth"]["state"] == "resume"
    assert "not yet sent" in b.status()["depth"]["why"]
    before = (path / "manifest.json").read_bytes()
    both = [machine.started("depth") for machine in (a, b)]  # one of them sends it, and the other waits
    for process in both:
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
    assert (path / "manifest.json").read_bytes() == before

    # A machine reads the shards that it lacks through a cache in which one or two fit, and comes to the same.
    states = {stage: row["state"] for stage, row in b.status().items()}
    assert [s for s, state in states.items() if state == "cached"] == ["ingest", "fit", "teacher", "depth"]
    told = b.stage("pretrain").stderr
    assert f"brings teacher {done.path('teacher').name} from {url}" in told
    pretrained = path.parents[1] / "pretrain" / done.path("pretrain").name
    same(done.path("pretrain"), pretrained)
    shards = [p for p in (pretrained.parents[1] / ".shards").iterdir() if not p.name.startswith(".")]
    assert shards
    assert sum(p.stat().st_size for p in shards) <= max(1e4, *(p.stat().st_size for p in shards))

    # All of it, in a folder again.
    a.run("pull", "all", url, "--root", tmp_path / "whole")
    a.run("verify", "--all", "--root", tmp_path / "whole")
    for stage in ("ingest", "fit", "teacher", "depth", "pretrain"):
        same(done.path(stage), tmp_path / "whole" / stage / done.path(stage).name)
    assert sum(breaking.seen.values()) >= 200, breaking.seen


def killed(process):
    """It and its children, with no word."""
    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGKILL)
    for child in children:
        child.kill()
    process.communicate()


def stopped_with_a_part(process, parts):
    """Stop a process, unless it is between two parts."""
    process.suspend()
    parts.look()
    if not parts.held():
        process.resume()
        return False
    return True


def same(one, other):
    expected, found = contents_of(one), contents_of(other)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
