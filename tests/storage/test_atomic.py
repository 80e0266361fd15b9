import os
import signal
import subprocess
import sys
import time

import pytest

from storage.atomic import write_bytes

WRITER = """
import sys
from pathlib import Path
from storage.atomic import write_bytes
while True:
    for byte in b"ab":
        write_bytes(Path(sys.argv[1]), bytes([byte]) * 300_000)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    file = tmp_path / "file"
    for delay in (0.0, 0.013, 0.029):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(file)])
        while not file.exists():
            time.sleep(0.01)
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        data = file.read_bytes()
        assert len(data) == 300_000
        assert len(set(data)) == 1


def test_a_full_disk_keeps_the_old_file(tmp_path):
    """A file size limit stands in for the disk: the write fails in the middle with an OSError."""
    file = tmp_path / "file"
    write_bytes(file, b"old")
    code = (
        "import resource, signal, sys; from pathlib import Path; from storage.atomic import write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_bytes(Path(sys.argv[1]), b'new' * 10000)"
    )
    failed = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
    assert "OSError" in failed.stderr
    assert file.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_missing_folder_is_made(tmp_path):
    write_bytes(tmp_path / "a" / "b", b"x")
    assert (tmp_path / "a" / "b").read_bytes() == b"x"
    with pytest.raises(OSError, match="b"):
        write_bytes(tmp_path / "a" / "b" / "c", b"x")
