"""What several processes on one stage do about each other, with threads in their place."""

import threading
import time

import numpy as np
import pytest

from storage.boxes import BoxStore
from storage.leases import LeaseLost, Leases
from storage.part_board import PartBoard
from tasks.engine.crew import done_here, take_or_leave, write_shared

TOKENS = [f"s{i}" for i in range(12)]
BOX = np.arange(9, dtype=np.float32)[None], np.ones(1, np.float32), np.zeros(1, np.int8)


@pytest.fixture
def store(tmp_path):
    return BoxStore(tmp_path / "boxes.zarr", TOKENS, 1)


def test_each_part_is_written_once_and_told_by_all(tmp_path, store):
    written, told = [], {}

    def member(name):
        with Leases(tmp_path / "leases", name) as leases:

            def write(part, lease):
                time.sleep(0.01)
                store.write(part, [BOX], lease.check)
                written.append(part)
                return name

            board = PartBoard([store.store], leases)
            begin = lambda part, lease: done_here(write, part, lease)  # noqa: E731
            told[name] = dict(write_shared(board, "teacher", begin, 1))

    threads = [threading.Thread(target=member, args=[name]) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(written) == list(range(12))
    assert [sorted(parts) for parts in told.values()] == [list(range(12))] * 3
    for part in range(12):
        assert sum(parts[part] is not None for parts in told.values()) <= 1


def test_a_part_that_was_lost_is_anothers(tmp_path, store, capsys):
    """This process was stopped for so long that another one took the part, and wrote it."""
    with Leases(tmp_path / "leases") as leases:
        lost = []

        def write(part, lease):
            if part == 3 and not lost:
                lost.append(part)
                store.write(part, [BOX])
                raise LeaseLost("3.0: another process has taken this work over")
            store.write(part, [BOX], lease.check)
            return "mine"

        board = PartBoard([store.store], leases)
        found = dict(write_shared(board, "teacher", lambda part, lease: done_here(write, part, lease), 2))
    assert {part for part, result in found.items() if result is None} == {3}
    assert "teacher: 3.0: another process has taken this work over" in capsys.readouterr().err


def test_one_finishes_and_the_others_take_what_it_made(tmp_path, capsys):
    made = tmp_path / "made"
    with Leases(tmp_path / "leases", "geomim teacher") as first, Leases(tmp_path / "leases") as second:
        assert take_or_leave(first, "teacher", made.exists)
        answers = []
        waiter = threading.Thread(target=lambda: answers.append(take_or_leave(second, "teacher", made.exists)))
        waiter.start()
        time.sleep(1.7)
        assert answers == []
        made.touch()
        waiter.join(10)
        assert answers == [False]
    assert "teacher: waiting for `geomim teacher` (process " in capsys.readouterr().err
