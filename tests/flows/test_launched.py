"""Commands that a launcher starts as two ranks: what is wrong is said once, and ends both."""

import socket

import pytest

from driver import TINY
from flows import launched
from launching import ended, typed
from tasks.engine.config import PipelineConfig

HOST = socket.gethostname()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["depth"],
            "depth: has no ranks, and 2 were launched (RANK and WORLD_SIZE are set): run it without torchrun",
        ),
        (["run"], "run: has no ranks, and 2 were launched"),
        (["pretrain", "--set", "pretrain.stepz=1"], "the config: unknown field pretrain.stepz; did you mean"),
        (["finetune", "--eval-only"], "--eval-only needs --checkpoint FILE, the detector to evaluate"),
        (["fit", "--root", "ftp://bucket"], "ftp://bucket: is no object root"),
    ],
)
def test_a_mistake_is_said_once(forks, tmp_path, words, told):
    codes, (first, second) = ended(forks, tmp_path, typed, words)
    assert codes == [2, 2]
    assert first.startswith(f"geomim: {told}"), first
    assert first.count("\n") == 1
    assert second == ""


def test_a_machine_without_the_dataroot(forks, tmp_path):
    (tmp_path / "data" / "v1.0-mini").mkdir(parents=True)
    words = ["pretrain", "--config", str(TINY), "--root", str(tmp_path / "root"), "--dataroot"]
    here, there = [*words, str(tmp_path / "data")], [*words, "/no/data"]
    codes, (first, second) = ended(forks, tmp_path, typed, here, there)
    assert codes == [2, 2]
    assert first == f"geomim: on {HOST}: the dataroot /no/data is not there: check --dataroot\n"
    assert second == ""
    assert not [*(tmp_path / "root").glob(".seen*")]


def test_a_root_that_another_machine_does_not_see(tmp_path, monkeypatch):
    monkeypatch.setattr(launched, "SECONDS_TO_SEE", 0.0)
    problem = launched._problem(PipelineConfig(), tmp_path / ".seen", "node1")
    assert problem == (
        f"--root {tmp_path}: {HOST} does not see what node1 writes there: name a folder on a file system that all "
        "machines share"
    )
