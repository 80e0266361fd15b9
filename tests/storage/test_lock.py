"""The lock of an artifact: waits, says for whom, and goes with the process that held it."""

import fcntl
import subprocess
import sys
import threading
import time

import pytest

from driver import wait_for
from storage import lock as lock_module
from storage.lock import NoLocks, holder, is_locked, lock_file, locked

HOLDER = """
import sys, time
from pathlib import Path
from storage.lock import locked
with locked(Path(sys.argv[1]), "geomim depth", shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    running = []

    def start(how="alone"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path / "folder"), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_the_second_waits_and_says_for_whom(tmp_path, hold):
    process, told, folder = hold(), [], tmp_path / "folder"
    assert is_locked(folder)
    assert f"`geomim depth` (process {process.pid} on " in holder(folder)

    def wait():
        with locked(folder, "geomim teacher", waiting=told.append):
            told.append("got it")

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_for(lambda: told)
    assert told[0].startswith(f"waiting for `geomim depth` (process {process.pid} on ")
    assert ", since 2" in told[0]
    assert len(told) == 1
    process.communicate("")
    waiter.join(10)
    assert told[1] == "got it"


def test_a_killed_holder_holds_nothing(tmp_path, hold):
    process = hold()
    process.kill()
    process.wait()
    assert not is_locked(tmp_path / "folder")
    assert holder(tmp_path / "folder") is None
    with locked(tmp_path / "folder", "geomim teacher"):
        assert is_locked(tmp_path / "folder")
    assert not lock_file(tmp_path / "folder").exists()


def test_readers_share_and_writers_wait_for_them(tmp_path, hold):
    first, second = hold("shared"), hold("shared")
    assert not is_locked(tmp_path / "folder")
    order = []

    def write():
        with locked(tmp_path / "folder", "geomim depth --force"):
            order.append("written")

    writer = threading.Thread(target=write)
    writer.start()
    first.communicate("")
    time.sleep(0.5)
    assert order == []
    second.communicate("")
    writer.join(10)
    assert order == ["written"]


def test_a_reader_that_is_gone_is_not_named_for_another(tmp_path, hold):
    _, second = hold("shared"), hold("shared")
    assert f"process {second.pid} on " in holder(tmp_path / "folder")
    second.communicate("")
    assert holder(tmp_path / "folder") == "another process"


def test_many_take_it_one_after_the_other(tmp_path):
    code = """
import sys
from pathlib import Path
from storage.lock import locked
for _ in range(20):
    with locked(Path(sys.argv[1]) / "folder", "x"):
        count = Path(sys.argv[1]) / "count"
        count.write_text(str(int(count.read_text()) + 1))
"""
    (tmp_path / "count").write_text("0")
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert (tmp_path / "count").read_text() == "80"


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(lock_module.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(NoLocks, match="keeps no locks"), locked(tmp_path / "folder", "x"):
        pass
