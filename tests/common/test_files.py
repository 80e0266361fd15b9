import errno
import os
import threading
import time
from pathlib import Path

import pytest

from common import files
from common.errors import DataError, FileSystemError, UserError
from common.files import patiently, read_file

FAILING = Path("/proc/self/mem")  # reading its beginning is a real input/output error


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(files, "PAUSES", (0.05, 0.1, 0.2))


@pytest.fixture
def failing(tmp_path) -> Path:
    try:
        FAILING.read_bytes()
    except OSError as error:
        if error.errno == errno.EIO:
            (tmp_path / "x.bin").symlink_to(FAILING)
            return tmp_path / "x.bin"
    pytest.skip(f"{FAILING} does not fail here")


def test_a_file_is_read(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 1000)
    assert read_file(tmp_path / "x") == b"abc" * 1000
    (tmp_path / "empty").touch()
    assert read_file(tmp_path / "empty") == b""


def test_a_file_system_that_fails_is_tried_again_and_is_not_the_users_mistake(failing, quick):
    start = time.monotonic()
    with pytest.raises(FileSystemError, match=r"x\.bin: the file system failed 4 times.*Input/output error") as raised:
        read_file(failing)
    assert not isinstance(raised.value, UserError)
    assert time.monotonic() - start >= 0.35


def test_a_file_system_that_is_well_again_is_not_noticed(failing, quick):
    def mend():
        time.sleep(0.1)
        whole = failing.with_name("whole")
        whole.write_bytes(b"points")
        os.replace(whole, failing)

    thread = threading.Thread(target=mend)
    thread.start()
    assert read_file(failing) == b"points"
    thread.join()


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ETIMEDOUT, errno.EIO, errno.ENOTCONN, errno.EAGAIN])
def test_what_network_drives_say_is_tried_again(number, quick):
    tries = []

    def look():
        tries.append(1)
        if len(tries) < 3:
            raise OSError(number, os.strerror(number))
        return 7

    assert patiently(Path("x"), look) == 7


def test_what_the_user_can_mend_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PAUSES", (60.0,))
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    cases = {
        "folder": "Is a directory",
        "file/x": "Not a directory",
        "pipe": "is no regular file",
        "loop": "symbolic links",
        "x" * 300: "name too long",
    }
    with pytest.raises(DataError, match="gone: is missing; copy it"):
        read_file(tmp_path / "gone", "copy it")
    for name, words in cases.items():
        with pytest.raises(DataError, match=rf"cannot be read \(.*{words}.*\); copy it"):
            read_file(tmp_path / name, "copy it")
