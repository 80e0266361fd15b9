"""`kill -9` in the middle of every stage, then the same command: it goes on, and the result is the same."""

import os
import signal

import numpy as np
import psutil
import pytest

from children import children_with
from contents import contents_of
from driver import wait_for
from storage.artifact import Artifact
from storage.lock import lock_file

pytestmark = pytest.mark.e2e

# Often enough saved that a kill lands between two saves.
SAVES = {
    "fit": ["--set", "fit.seconds_between_saves=0.01"],
    "pretrain": ["--set", "pretrain.seconds_between_saves=0.01"],
    "finetune": ["--set", "finetune.seconds_between_saves=0.01"],
}


# The stage's own process is killed in every stage; the waiting command, in one with a store and one that trains.
CASES = [(stage, "child") for stage in ("ingest", "fit", "teacher", "depth", "pretrain", "finetune")]
CASES += [("depth", "command"), ("pretrain", "command")]


@pytest.mark.parametrize(("stage", "victim"), CASES)
def test_a_killed_stage_goes_on_to_the_same_result(cli, stage, victim):
    path = cli.path(stage)
    expected = contents_of(path)
    artifact = Artifact(cli.root, stage, cli.status()[stage]["key"])
    artifact.remove()

    running = cli.start(stage, *SAVES.get(stage, []))
    if stage == "ingest":
        wait_for(lambda: (path / "recipe.json").is_file(), every=0.005)
    else:
        wait_for(lambda: (artifact.progress() or (0, 0))[0] >= 1, every=0.005)
    if victim == "child":
        os.kill(psutil.Process(running.pid).children()[0].pid, signal.SIGKILL)
        output, _ = running.communicate(timeout=30)
        assert running.returncode == 1
        assert "was killed by SIGKILL; the same command goes on from there" in output
        assert "Traceback" not in output
    else:
        child = psutil.Process(running.pid).children()[0]
        running.kill()
        running.communicate()
        psutil.wait_procs([child], timeout=10)
        assert not child.is_running(), "the training process outlived its command"
    assert artifact.manifest() is None
    assert cli.status()[stage]["state"] == "resume"

    if victim == "command":
        cli(stage)
    else:
        cli.here(stage)
    found = contents_of(path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_forced_stage_that_is_killed_is_tried_again_from_where_it_was(cli):
    """The second try of a Prefect task is not forced again: a week of training would be lost."""
    path = cli.path("depth")
    artifact = Artifact(cli.root, "depth", cli.status()["depth"]["key"])
    running = cli.start("run", "--to", "depth", "--force", "depth")
    wait_for(lambda: not artifact.has_manifest() and (artifact.progress() or (0, 0))[0] >= 2, every=0.005)
    lock = str(lock_file(path))
    children = children_with("tasks.engine.child", psutil.Process(running.pid))
    (child,) = [p for p in children if any(file.path == lock for file in p.open_files())]
    child.kill()
    child.wait()
    flags = [file for file in (path / "depth.zarr" / "done" / "c").rglob("*") if file.is_file()]
    times = {file: file.stat().st_mtime_ns for file in flags}
    output, _ = running.communicate(timeout=120)
    assert running.returncode == 0, output
    assert len(times) >= 2
    assert {file: file.stat().st_mtime_ns for file in flags} == times
    assert artifact.is_intact()


def test_ctrl_c_ends_a_run_and_its_stages_at_once(cli):
    """Prefect waits for the thread that waits for the stage: of so many steps it would wait for hours."""
    words = ["--set", "pretrain.steps=1000000", "--set", "pretrain.seconds_between_saves=0.01"]
    running = cli.start("run", "--to", "pretrain", *words)
    artifact = Artifact(cli.root, "pretrain", cli.status(*words)["pretrain"]["key"])
    wait_for(lambda: (artifact.progress() or (0, 0))[0] >= 1, every=0.05)
    stages = children_with("tasks.engine.child", psutil.Process(running.pid))
    assert len(stages) == 1
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=90)
    assert running.returncode == 130, output
    assert "geomim: stopped; the same command goes on from there" in output
    assert "Traceback" not in output
    assert not stages[0].is_running()
    assert cli.status(*words)["pretrain"]["state"] == "resume"
