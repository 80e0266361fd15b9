"""Parts shared out among processes: each is written once, those of a dead one again, a doubtful one is looked at."""

import json

import numpy as np
import pytest

from storage import leases as module
from storage.boxes import BoxStore
from storage.leases import Lease, LeaseLost, Leases
from storage.part_board import PartBoard

TOKENS = [f"s{i}" for i in range(7)]
BOX = np.arange(9, dtype=np.float32)[None], np.ones(1, np.float32), np.zeros(1, np.int8)


@pytest.fixture
def stores(tmp_path):
    return [BoxStore(tmp_path / name, TOKENS, 2) for name in ("a.zarr", "b.zarr")]


@pytest.fixture
def board(tmp_path, stores):
    def make():
        leases = Leases(tmp_path / "leases").__enter__()
        made.append(leases)
        return PartBoard([store.store for store in stores], leases)

    made: list[Leases] = []
    yield make
    for leases in made:
        leases.__exit__()


def write(stores, part):
    for store in stores:
        store.write(part, [BOX] * len(store.store.samples(part)))


def test_two_write_each_part_once(board, stores):
    first, second, written = board(), board(), []
    boards = [first, second]
    while claimed := boards[0].claim():
        part, lease = claimed
        lease.check()
        write(stores, part)
        boards[0].give_back(part)
        written.append(part)
        boards.reverse()
    assert written == [0, 1, 2, 3]
    assert list(first.newly_done()) == list(second.newly_done()) == [0, 1, 2, 3]
    assert first.left == second.left == []
    assert second.claim() is None


def test_a_part_is_done_when_all_its_stores_have_it(board, stores):
    mine = board()
    stores[0].write(0, [BOX, BOX])
    assert list(mine.newly_done()) == []
    assert mine.claim()[0] == 0
    write(stores, 0)
    assert list(mine.newly_done()) == [0]


def test_what_others_have_is_left_to_them(board):
    first, second = board(), board()
    assert [first.claim()[0], second.claim()[0], first.claim()[0], second.claim()[0]] == [0, 1, 2, 3]
    assert second.claim() is None
    assert "process" in second.holder()
    first.give_back(2)
    assert second.claim()[0] == 2


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "damaged"])
def test_a_part_that_two_may_have_written_is_read_before_it_counts(board, stores, tmp_path, whole):
    """Its first holder was taken for dead, and woke up: chunks of one and checksums of the other fit together never."""
    mine = board()
    before = Lease(tmp_path / "leases", "0", 0)
    before.path.write_text(json.dumps({"machine": module.MACHINE, "pid": 2**22 + 1}))
    part, lease = mine.claim()
    assert (part, lease.number) == (0, 1)
    write(stores, 0)
    if not whole:
        file = stores[1].store.arrays["box"].file(0)
        file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))
    mine.give_back(0)
    with pytest.raises(LeaseLost):
        before.check()
    assert list(mine.newly_done()) == ([0] if whole else [])
    assert [damage.path.name for damage in mine.mended] == ([] if whole else ["0"])
    assert mine.left == ([1, 2, 3] if whole else [0, 1, 2, 3])
