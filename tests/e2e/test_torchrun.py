"""`geomim pretrain` under torchrun, on two machines that are both this one: the same numbers, also after a kill."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from driver import Cli, environment, wait_for
from launching import free_port
from storage.artifact import Artifact

pytestmark = pytest.mark.e2e

TORCHRUN = Path(sys.executable).with_name("torchrun")
SETTINGS = ["pretrain.seconds_between_saves=0.01", "pretrain.threads=1"]
OPTIONS = [f"--set={setting}" for setting in SETTINGS]
STEPS = 6  # of the tiny config


@pytest.fixture(scope="module")
def runs(finished, forks, tmp_path_factory):
    """Roots by what trained in them: two ranks of one process, and two that torchrun started, one of which was killed.

    "left" is as the kill left it. Then the command line there, and what the agents printed.
    """
    done, _ = finished
    folder = tmp_path_factory.mktemp("torchrun")
    artifact = Artifact(done.root, "pretrain", done.status()["pretrain"]["key"])
    clis = {}
    for name in ("one process", "torchrun", "left"):
        clis[name] = Cli(done.dataroot, folder / name)
        shutil.copytree(done.root, folder / name, ignore=shutil.ignore_patterns("pretrain", ".prefect", "*tune*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.ranks.SharingContext", lambda threads: forks)
        clis["one process"].here("pretrain", *SETTINGS, "pretrain.ranks=2")

    agents = launch(clis["torchrun"], restarts=1)
    trained = replace(artifact, root=clis["torchrun"].root)
    wait_for(lambda: (trained.progress() or (0, 0))[0] >= 2, every=0.01)
    ranks = [process for agent in agents for process in psutil.Process(agent.pid).children()]
    for process in ranks:
        process.suspend()
    shutil.copytree(trained.path, replace(artifact, root=clis["left"].root).path)
    (victim,) = [process for process in ranks if process.environ()["RANK"] == "1"]
    victim.kill()
    for process in ranks:
        process.resume()
    told = [agent.communicate(timeout=300)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(told)
    assert psutil.wait_procs(ranks, timeout=10)[1] == []
    return {name: replace(artifact, root=cli.root) for name, cli in clis.items()}, clis["left"], told


def launch(cli, restarts):
    """Two agents, a process each."""
    command = [TORCHRUN, "--nnodes=2", "--nproc-per-node=1", f"--max-restarts={restarts}", "--rdzv-backend=c10d"]
    command += [f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--rdzv-id=test", "--local-addr=127.0.0.1", "--no-python"]
    words = [str(word) for word in (*command, *cli.command("pretrain", *OPTIONS))]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [subprocess.Popen(words, env=environment(), **pipes) for _ in range(2)]


def losses(artifact):
    lines = [json.loads(line) for line in (artifact.path / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_killed_and_started_again_two_agents_make_the_bytes_of_one_process(runs, finished):
    roots, _, told = runs
    one, two = roots["one process"], roots["torchrun"]
    assert two.is_intact()
    assert list(losses(two)) == list(range(STEPS))
    assert losses(two) == losses(one)
    name = "backbone.safetensors"
    assert (two.path / name).read_bytes() == (one.path / name).read_bytes()
    alone = losses(replace(two, root=finished[0].root))
    np.testing.assert_allclose(list(losses(two).values()), list(alone.values()), rtol=1e-3)
    assert sum("held-out reconstruction" in text for text in told) == 1  # rank 0 alone tells
    assert not [text for text in told if "Traceback" in text]


def test_one_rank_goes_on_where_two_were(runs):
    roots, cli, _ = runs
    left, done = roots["left"], roots["left"].progress()[0]
    assert 2 <= done < STEPS
    cli.here("pretrain", *SETTINGS)
    assert left.is_intact()
    before, whole = losses(left), losses(roots["one process"])
    assert list(before) == list(range(STEPS))
    assert [before[step] for step in range(done)] == [whole[step] for step in range(done)]
    np.testing.assert_allclose(list(before.values()), list(whole.values()), rtol=1e-3)
