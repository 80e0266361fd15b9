"""A way of pretraining in one new file: the command line runs it, and no other file knows of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from driver import TINY, environment, wait_for
from storage.artifact import PROGRESS

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
ROOMS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
METHOD = "pretrain.method={name: mean_colour, weight: 2}"
SAVES = "pretrain.seconds_between_saves=0.001"


@pytest.fixture
def geomim(finished, tmp_path):
    """The command line of a copy of the code that has one file more, on a root that holds the index alone."""
    done, _ = finished
    for room in (*ROOMS, "configs"):
        shutil.copytree(ROOT / room, tmp_path / "code" / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/support/mean_colour.py", tmp_path / "code/tasks/pretrain/methods/mean_colour.py")
    shutil.copytree(done.root / "ingest", tmp_path / "root" / "ingest")

    def start(stage: str, root: str = "root", *options: str) -> subprocess.Popen:
        options = ("--config", TINY, "--dataroot", done.dataroot, "--root", tmp_path / root, "--set", METHOD, *options)
        command = [sys.executable, "-c", "from flows.cli import main; main()", stage, *map(str, options)]
        return subprocess.Popen(
            command,
            cwd=tmp_path / "code",
            env=environment() | {"PYTHONPATH": str(tmp_path / "code")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def test_a_method_is_one_file(geomim, tmp_path):
    """Run, killed, resumed to the same weights, measured and drawn; the plan has neither teacher nor depth."""
    shutil.copytree(tmp_path / "root", tmp_path / "whole")
    output, _ = (whole := geomim("pretrain", "whole")).communicate(timeout=300)
    assert whole.returncode == 0, output
    (expected,) = (tmp_path / "whole" / "pretrain").glob("*/")

    running = geomim("pretrain", "root", "--set", SAVES)
    folder = tmp_path / "root" / "pretrain" / expected.name
    wait_for(lambda: (folder / PROGRESS).is_file(), every=0.005)
    os.kill(psutil.Process(running.pid).children()[0].pid, signal.SIGKILL)
    output, _ = running.communicate(timeout=60)
    assert "was killed by SIGKILL; the same command goes on from there" in output
    output, _ = (again := geomim("pretrain", "root", "--set", SAVES)).communicate(timeout=300)
    assert again.returncode == 0, output

    for name in ("model.safetensors", "backbone.safetensors"):
        ours, wanted = load_file(folder / name), load_file(expected / name)
        assert ours.keys() == wanted.keys()
        assert all(torch.equal(ours[key], wanted[key]) for key in wanted)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained, measured = ([line for line in lines if name in line] for name in ("colour", "held_out_colour"))
    assert [line["step"] for line in trained] == list(range(6))
    assert all(line["loss"] == line["colour"] for line in trained)
    assert [line["step"] for line in measured] == [2, 5]
    assert {"held_out_zero", "held_out_rank"} <= measured[0].keys()
    assert (folder / "pretrain.png").is_file()

    output, _ = geomim("status", "root", "--json").communicate(timeout=60)
    states = {row["stage"]: row["state"] for row in json.loads(output)}
    assert states["pretrain"] == "cached"
    assert "teacher" not in states
    assert "fit" not in states
