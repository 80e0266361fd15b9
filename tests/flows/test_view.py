"""`geomim view` from the terminal: its link, its port, its end; a scene for the viewer of Rerun."""

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from driver import GEOMIM, environment
from finished_run import common, finished
from gallery.opened import open_artifact

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


def a_scene_of_val(root):
    opened = open_artifact(next(root.glob("evaluate/*")))
    return str(opened.index.scene_name[opened.index.scene[opened.samples[0]]])


def test_a_scene_for_the_viewer_of_rerun(finished, geomim, tmp_path, monkeypatch):
    pytest.importorskip("rerun")
    scene, root = a_scene_of_val(finished[0].root), finished[0].root
    monkeypatch.chdir(tmp_path)
    code, printed, errors = geomim("view", root, "--rerun", scene, "--no-open")
    assert (code, errors) == (0, "")
    where, how = printed.splitlines()
    assert re.fullmatch(rf"{scene}\.rrd  [\d.]+ [kM]B, \d+ samples of evaluate \w{{16}}  [\d.]+ s", where)
    assert how == f"rerun {scene}.rrd  opens it"
    assert (tmp_path / f"{scene}.rrd").stat().st_size > 100_000


def test_the_viewer_is_opened_where_there_is_a_screen(finished, geomim, tmp_path, monkeypatch):
    pytest.importorskip("rerun")
    opened = []
    monkeypatch.setattr("flows.view._has_screen", lambda: True)
    monkeypatch.setattr("subprocess.Popen", lambda words, **options: opened.append(words))
    out = tmp_path / "scene.rrd"
    assert geomim("view", finished[0].root, "--rerun", a_scene_of_val(finished[0].root), "--out", out)[0] == 0
    assert opened == [[sys.executable, "-m", "rerun", str(out)]]


def test_mistakes_with_rerun_are_said_before_anything_is_written(finished, geomim, tmp_path, monkeypatch):
    root, scene, out = finished[0].root, a_scene_of_val(finished[0].root), tmp_path / "scene.rrd"

    def says(*words):
        code, _, errors = geomim("view", *words, "--no-open")
        assert (code, errors.count("\n")) == (2, 1)
        return errors

    assert "name the scene" in says(root, "--out", out)
    assert "--port" in says(root, "--rerun", scene, "--port", 8300)
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert "pip install 'rerun-sdk==" in says(root, "--rerun", scene, "--out", out)
    monkeypatch.setitem(sys.modules, "rerun", object())  # there, and never asked for anything
    assert "files that end in .rrd" in says(root, "--rerun", scene, "--out", tmp_path)
    assert "files that end in .rrd" in says(root, "--rerun", scene, "--out", tmp_path / "scene.png")
    assert "is no scene here; there are scene-" in says(root, "--rerun", "scene-9999", "--out", out)
    assert "name one of evaluate/" in says(*root.glob("evaluate/*"), "--rerun", scene, "--out", out)
    assert [*tmp_path.iterdir()] == []
