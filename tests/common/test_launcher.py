import pytest

from common.errors import UserError
from common.launcher import Launched, is_follower, launched

PLACE = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}


@pytest.fixture
def place(monkeypatch):
    """Sets variables as a launcher does, and unsets those that are None."""

    def set_all(**changes):
        for name, value in (PLACE | changes).items():
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)

    return set_all


def test_a_process_that_nobody_launched(place):
    place(RANK=None)
    assert launched() is None
    assert not is_follower()


def test_a_place_among_launched_processes(place):
    place()
    assert launched() == Launched(rank=3, count=4, local_rank=1, local_count=4, restarted=False)
    assert is_follower()
    place(RANK="0", LOCAL_RANK="0", LOCAL_WORLD_SIZE="2", TORCHELASTIC_RESTART_COUNT="0", SLURM_RESTART_COUNT="1")
    assert launched() == Launched(rank=0, count=4, local_rank=0, local_count=2, restarted=True)
    assert not is_follower()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"LOCAL_RANK": None}, "LOCAL_RANK is not: set all of RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two': launchers set it to a number"),
        ({"RANK": "4"}, "RANK is 4, LOCAL_RANK 1 and WORLD_SIZE 4: ranks count from 0"),
    ],
)
def test_a_place_that_makes_no_sense(place, changes, words):
    place(**changes)
    with pytest.raises(UserError, match=words):
        launched()
