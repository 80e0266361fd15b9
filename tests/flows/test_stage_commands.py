"""Stages' commands through the command line's entry: what their options ask for shows in the sentences of mistakes."""

import json
import re
from functools import partial
from pathlib import Path

import pytest

from dataroot.names import TABLES
from flows import cli, stage_commands
from tasks.engine.config import load_config


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run a stage's command on a folder of empty tables; its exit code and what it says."""
    (tmp_path / "data" / "v1.0-mini").mkdir(parents=True)
    for table in TABLES:
        (tmp_path / "data" / "v1.0-mini" / f"{table}.json").write_text(json.dumps([]))

    def run(stage, *words):
        options = ["--dataroot", str(tmp_path / "data"), "--root", str(tmp_path / "root")]
        monkeypatch.setattr("sys.argv", ["geomim", stage, *options, *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, capsys.readouterr().err

    return run


@pytest.fixture
def finetune(command):
    return partial(command, "finetune")


def test_the_example_evaluates_a_released_detector_as_it_was_trained():
    example = re.search(r"--config (\S+) --eval-only", stage_commands.finetune.__doc__)
    view = load_config(Path(example[1])).finetune.view
    assert (view.channels, view.key_ego, view.truncate_cells) == ("bgr", "camera", True)


def test_a_checkpoint_is_where_training_begins_or_what_is_evaluated(finetune):
    code, told = finetune("--checkpoint", "nowhere.pth")
    assert (code, told) == (2, "geomim: finetune.init: there is no file nowhere.pth\n")
    code, told = finetune("--checkpoint", "nowhere.pth", "--eval-only")
    assert (code, told) == (2, "geomim: evaluate.checkpoint: there is no file nowhere.pth\n")


def test_there_must_be_something_to_evaluate(finetune):
    assert finetune("--eval-only") == (2, "geomim: --eval-only needs --checkpoint FILE, the detector to evaluate\n")


def test_a_public_config_describes_the_detector_that_is_evaluated(finetune, tmp_path):
    (tmp_path / "detector.pth").write_bytes(b"x")
    named = ("--checkpoint", str(tmp_path / "detector.pth"), "--public-config", "nowhere.py")
    code, told = finetune(*named, "--eval-only")
    assert (code, told) == (2, "geomim: evaluate.public_config: there is no file nowhere.py\n")
    code, told = finetune(*named)
    assert (code, told) == (
        2,
        "geomim: --public-config needs --eval-only and --checkpoint, the detector that it describes\n",
    )


def test_processes_share_a_step(finetune):
    code, told = finetune("--nproc", "5")
    assert code == 2
    assert "batch_size is 16, which accumulate (1) times ranks (5) does not divide" in told


def test_a_teachers_checkpoint_and_its_public_config(command, tmp_path):
    (tmp_path / "lidar.pth").write_bytes(b"x")
    code, told = command("teacher", "--checkpoint", str(tmp_path / "lidar.pth"), "--public-config", "nowhere.py")
    assert (code, told) == (2, "geomim: teacher.public_config: there is no file nowhere.py\n")
    code, told = command("teacher", "--public-config", "nowhere.py")
    assert code == 2
    assert "public_config describes a checkpoint: name that in teacher.weights" in told
