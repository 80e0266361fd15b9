"""`geomim view` from the terminal: its link, its port, its end."""

import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from driver import GEOMIM, environment
from finished_run import common, finished

__all__ = ["common", "finished"]


def test_it_prints_a_link_and_ends_quietly_on_ctrl_c(finished):
    words = [GEOMIM, "view", finished[0].root, "--no-open"]
    process = subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        link = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", link)
        assert process.stdout.readline() == "Ctrl-C ends it.\n"
        jar = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert b"<title>geomim view</title>" in jar.open(link, timeout=60).read()
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(link.partition("?")[0], timeout=60)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, errors) == (0, "", "")


def test_a_port_that_is_taken(finished, geomim):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, errors = geomim("view", finished[0].root, "--no-open", "--port", port)
    assert code == 2
    assert errors == f"geomim: --port {port}: Address already in use; choose another, or none\n"


def test_nothing_to_show(tmp_path, geomim):
    code, _, errors = geomim("view", tmp_path / "nothing", "--no-open")
    assert code == 2
    assert "there is no such folder" in errors
