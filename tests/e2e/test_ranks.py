"""`geomim pretrain` on two ranks: they end together, whoever of the processes involved is killed, and go on."""

import json
import os
import signal

import psutil
import pytest

from children import children_with
from driver import wait_for
from storage.artifact import Artifact

pytestmark = pytest.mark.e2e

STEPS = 24
OPTIONS = [
    f"--set=pretrain.{o}" for o in ("ranks=2", f"steps={STEPS}", "evaluate_every=12", "seconds_between_saves=0.01")
]


def test_two_ranks_end_together_and_go_on(cli):
    artifact = Artifact(cli.root, "pretrain", cli.status(*OPTIONS)["pretrain"]["key"])

    running, command, stage, ranks = started(cli, artifact, after=0)
    os.kill(ranks[1].pid, signal.SIGKILL)
    output, _ = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "geomim: pretrain: rank 1 of 2 was killed by SIGKILL; the same command goes on from there" in output
    assert not [word for word in ("Traceback", "Warning") if word in output], output
    assert psutil.wait_procs([stage, *ranks], timeout=10)[1] == []

    done, _ = artifact.progress()
    running, command, stage, ranks = started(cli, artifact, after=done)
    command.kill()
    running.communicate()
    assert psutil.wait_procs([stage, *ranks], timeout=10)[1] == []

    output = cli("pretrain", "--nproc", 2, *OPTIONS[1:]).stderr  # the same as ranks=2
    assert not [word for word in ("Traceback", "Warning") if word in output], output
    assert artifact.is_intact()
    lines = [json.loads(line) for line in (artifact.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(STEPS))
    assert [line["step"] for line in lines if "held_out_reconstruction" in line] == [11, 23]


def started(cli, artifact, after):
    """The command, its process, the stage's and the ranks', when more than `after` steps are done."""
    running = cli.start("pretrain", *OPTIONS)
    wait_for(lambda: (artifact.progress() or (0, 0))[0] > after, every=0.01)
    command = psutil.Process(running.pid)
    (stage,) = command.children()
    ranks = children_with("spawn_main", stage)
    assert len(ranks) == 2
    return running, command, stage, sorted(ranks, key=lambda process: process.create_time())
