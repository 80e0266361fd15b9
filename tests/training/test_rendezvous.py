"""Ranks that a launcher has started: what they do together, and that they end together."""

import socket
from datetime import timedelta

import psutil
import pytest
from torch import distributed

import rank_jobs
from common.errors import StageFailed
from common.launcher import Launched
from driver import wait_for
from launching import begun, ended, free_port
from training.rendezvous import Rendezvous

HOST = socket.gethostname()


def test_they_do_one_thing_after_the_other(forks, tmp_path):
    """With arguments as they are on each machine; then rank 0 says how many they can be."""
    codes, (first, second) = ended(forks, tmp_path, rank_jobs.as_rank, rank_jobs.launched_ranks)
    assert codes == [0, 0], first + second
    assert first.splitlines() == [
        "[1, 10] 1",
        "[2, 20] 1",
        "2",
        "2",
        "ranks is 3, but 2 were launched: set ranks to 0 or 2",
        "device is 'cuda:1', but launched ranks take a machine's GPUs in order: set it to cuda",
        "2 ranks were launched, which do not divide a (micro-)batch of 5 samples",
    ]
    assert second == ""


def test_a_second_start_does_not_hear_the_first(forks, tmp_path):
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for word in ("first", "second"):
        (tmp_path / word).mkdir()
        codes, (_, heard) = ended(forks, tmp_path / word, rank_jobs.a_word, word, port=store.port)
        assert (codes, heard) == ([0, 0], f"{word}\n")


def test_who_comes_late_to_a_good_end_has_not_failed(forks, tmp_path):
    assert ended(forks, tmp_path, rank_jobs.comes_late) == ([0, 0], ["", ""])


def test_what_one_finds_rank_0_tells(forks, tmp_path):
    codes, told = ended(forks, tmp_path, rank_jobs.as_rank, rank_jobs.rank_1_fails)
    assert codes == [2, 2]
    assert told == [f"geomim: samples/1.jpg: cannot be read (rank 1, on {HOST})\n", ""]


def test_a_rank_that_was_killed_ends_the_other(forks, tmp_path):
    codes, (first, _) = ended(forks, tmp_path, rank_jobs.as_rank, rank_jobs.rank_1_is_killed)
    assert codes == [1, -9]
    assert first.startswith("geomim: rank 0 of 2 lost another (")
    assert first.endswith("); the same command goes on from there\n")


def test_so_does_rank_0(forks, tmp_path):
    codes, _ = ended(forks, tmp_path, rank_jobs.as_rank, rank_jobs.rank_0_is_killed)
    assert codes == [-9, 1]


def test_a_machine_that_goes_without_a_word(forks, tmp_path):
    ranks = begun(forks, tmp_path, rank_jobs.as_rank, rank_jobs.rank_1_is_suspended)
    ranks[0].join(60)
    ranks[1].kill()
    assert ranks[0].exitcode == 1
    told = "geomim: rank 1 of 2 has gone without a word; the same command goes on from there\n"
    assert (tmp_path / "rank0").read_text() == told


def test_they_die_with_their_launcher(forks, tmp_path):
    launcher = forks.Process(target=rank_jobs.launcher, args=(free_port(), tmp_path / "rank"))
    launcher.start()
    rank = psutil.Process(int(wait_for(lambda: (tmp_path / "rank").exists() and (tmp_path / "rank").read_text())))
    launcher.kill()
    launcher.join()
    assert psutil.wait_procs([rank], timeout=20)[1] == []


def test_an_address_that_is_nobodys(monkeypatch):
    """Said by whoever looks for it: rank 0 cannot know."""
    monkeypatch.setattr("training.rendezvous.TO_MEET", timedelta(seconds=2))
    monkeypatch.setenv("MASTER_ADDR", "no-such-host.invalid")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(StageFailed, match=f"rank 1 of 2 on {HOST} does not meet the others at no-such-host.invalid:"):
        Rendezvous(Launched(1, 2, 1, 2, False))
