"""Leases: one holder at a time, taken over when it ends, with no clock in common and no lock of the file system's."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from driver import wait_for
from storage import leases as module
from storage.leases import Lease, LeaseLost, Leases

HOLDER = """
import sys
from pathlib import Path
from storage.leases import Leases
with Leases(Path(sys.argv[1]), "geomim depth") as leases:
    print(leases.claim(["a"]) is not None, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate()


def elsewhere(folder, name, number=0) -> Lease:
    """A lease that a process of another machine holds."""
    lease = Lease(folder, name, number)
    lease.path.write_text(json.dumps({"machine": "another", "host": "node7", "pid": os.getpid(), "what": "x"}))
    return lease


def test_one_holds_it_until_it_lets_go(tmp_path, hold):
    with Leases(tmp_path) as leases:
        assert leases.claim(["a"]) is None
        assert leases.claim(["a", "b"]) == Lease(tmp_path, "b", 0)
        assert leases.holder("a") == f"`geomim depth` (process {hold.pid} on {module.socket.gethostname()})"
        hold.communicate("")
        assert leases.claim(["a"]) == Lease(tmp_path, "a", 0)
        assert leases.taken_over() == set()
        leases.release("b")
    assert os.listdir(tmp_path) == []


def test_a_killed_process_of_this_machine_is_not_waited_for(tmp_path, hold):
    with Leases(tmp_path) as leases:
        hold.kill()
        hold.wait()
        assert leases.claim(["a"]) == Lease(tmp_path, "a", 1)
        assert leases.taken_over() == {"a"}


def test_of_another_machine_it_ends_when_nobody_touches_it(tmp_path):
    lease = elsewhere(tmp_path, "a")
    began = time.monotonic()
    with Leases(tmp_path, seconds=0.5) as leases:
        for _ in range(4):
            time.sleep(0.2)
            os.utime(lease.path)
            assert leases.claim(["a"]) is None
        assert time.monotonic() - began > 0.5
        taken = wait_for(lambda: leases.claim(["a"]))
        with pytest.raises(LeaseLost, match=r"a\.0: another process has taken this work over"):
            lease.check()
        assert taken == Lease(tmp_path, "a", 1)
        taken.check()


def test_clocks_need_not_agree(tmp_path):
    """A holder whose clock is an hour behind, or ahead, is as alive as any."""
    lease = elsewhere(tmp_path, "a")
    with Leases(tmp_path, seconds=30) as leases:
        for hours in (-1, 1):
            os.utime(lease.path, (time.time() + 3600 * hours,) * 2)
            assert leases.claim(["a"]) is None


def test_a_holder_stays_alive_by_itself(tmp_path):
    """And one that is stopped for too long finds that its work is another's."""
    with Leases(tmp_path, seconds=0.4) as first, Leases(tmp_path, seconds=0.4) as second:
        lease = first.claim(["a"])
        owner = json.loads(lease.path.read_text())
        lease.path.write_text(json.dumps(owner | {"machine": "another"}))
        for _ in range(5):
            time.sleep(0.2)
            assert second.claim(["a"]) is None
        first._ended.set()  # as if it were stopped
        wait_for(lambda: second.claim(["a"]))
        with pytest.raises(LeaseLost):
            lease.check()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"machine": 1}'], ids=["empty", "cut", "a list", "no process"])
def test_a_file_that_says_nothing_ends_too(tmp_path, content):
    Lease(tmp_path, "a", 0).path.write_text(content)
    with Leases(tmp_path, seconds=0.3) as leases:
        assert leases.claim(["a"]) is None
        assert leases.holder("a") == "another process"
        wait_for(lambda: leases.claim(["a"]))


def test_many_at_once_take_each_once(tmp_path):
    """Eight holders, fifty leases, all of which had a holder that is gone."""
    for number in range(50):
        lease = elsewhere(tmp_path, str(number))
        owner = json.loads(lease.path.read_text()) | {"machine": module.MACHINE, "pid": gone()}
        lease.path.write_text(json.dumps(owner))
    barrier = threading.Barrier(8)

    def take(_):
        barrier.wait()
        with Leases(tmp_path, seconds=30) as leases:
            taken = []
            while (lease := leases.claim(map(str, range(50)))) is not None:
                taken.append(lease.name)
                lease.check()
            barrier.wait()
            return taken

    with ThreadPoolExecutor(8) as pool:
        names = [name for taken in pool.map(take, range(8)) for name in taken]
    assert sorted(names, key=int) == list(map(str, range(50)))


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_one_whose_folder_is_gone_is_lost(tmp_path):
    """The artifact was finished, and its leases removed, while this process slept."""
    with Leases(tmp_path / "leases") as leases:
        lease = leases.claim(["a"])
        leases.finished()
        with pytest.raises(LeaseLost):
            lease.check()
        assert leases.claim(["b"]) is None


def test_one_of_the_same_name_in_a_new_folder_is_anothers(tmp_path):
    """The artifact was finished and begun anew while a process slept: it has no part in the new holder's."""
    with Leases(tmp_path / "leases") as sleeper, Leases(tmp_path / "leases") as other:
        lease = sleeper.claim(["a"])
        other.finished()
        (tmp_path / "leases").mkdir()
        its = other.claim(["a"])
        assert its.path == lease.path
        with pytest.raises(LeaseLost):
            lease.check()
        sleeper.release("a")
        its.check()
