"""The tiny pipeline on an object root, from two machines in turn, while a proxy breaks a third of all requests."""

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


@pytest.fixture
def faults(s3):
    """A proxy's, and the environment of who goes through it."""
    breaking = Faults(0.33, seed=5)
    with proxy(s3, breaking) as port:
        yield breaking, credentials(port)


def test_two_machines_share_an_object_root(finished, s3, faults, tmp_path, monkeypatch):
    done, _ = finished
    breaking, variables = faults
    url = new_bucket(s3)
    a, b = (
        Machine(done.dataroot, url, variables | {"GEOMIM_CACHE": str(tmp_path / name), "GEOMIM_CACHE_GB": "1e-5"})
        for name in "ab"
    )
    for name, value in b.variables.items():  # for `status`, which runs in this process
        monkeypatch.setenv(name, value)

    # What was made elsewhere is sent, one stage made on this machine, and killed while it sends.
    a.run("push", done.path("teacher"), url, "--inputs")
    path = mirror_path(url, tmp_path / "a", done.path("depth"), monkeypatch)
    running = a.started("depth")
    wait_for(lambda: (path / "manifest.json").exists(), every=0.01)
    children = psutil.Process(running.pid).children()
    running.send_signal(signal.SIGKILL)
    for child in children:
        os.kill(child.pid, signal.SIGKILL)
    running.communicate()
    assert a.status()["depth"]["state"] == "resume"
    assert "not yet sent" in a.status()["depth"]["why"]
    before = (path / "manifest.json").read_bytes()
    both = [machine.started("depth") for machine in (a, b)]  # one of them sends it, and the other waits
    for process in both:
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
    assert (path / "manifest.json").read_bytes() == before

    # The other machine reads the shards through a cache in which one or two fit, and comes to the same.
    for name, value in b.variables.items():
        monkeypatch.setenv(name, value)
    states = {stage: row["state"] for stage, row in b.status().items()}
    assert [s for s, state in states.items() if state == "cached"] == ["ingest", "fit", "teacher", "depth"]
    told = b.stage("pretrain").stderr
    assert f"brings teacher {done.path('teacher').name} from {url}" in told
    there = mirror_path(url, tmp_path / "b", done.path("pretrain"), monkeypatch)
    same(done.path("pretrain"), there)
    shards = [p for p in (there.parents[1] / ".shards").iterdir() if not p.name.startswith(".")]
    assert shards
    assert sum(p.stat().st_size for p in shards) <= max(1e4, *(p.stat().st_size for p in shards))

    # All of it, in a folder again.
    a.run("pull", "all", url, "--root", tmp_path / "whole")
    a.run("verify", "--all", "--root", tmp_path / "whole")
    for stage in ("ingest", "fit", "teacher", "depth", "pretrain"):
        same(done.path(stage), tmp_path / "whole" / stage / done.path(stage).name)
    assert sum(breaking.seen.values()) >= 200, breaking.seen


def same(one, other):
    expected, found = contents_of(one), contents_of(other)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def mirror_path(url, cache, path, monkeypatch):
    """Where an artifact is in a machine's mirror."""
    monkeypatch.setenv("GEOMIM_CACHE", str(cache))
    return mirror_at(url).root / path.parent.name / path.name
