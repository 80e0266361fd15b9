"""A stage's own process begins only under those who wait for it."""

import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.errors import UserError
from driver import wait_for
from tasks.engine import child
from tasks.engine.child import Bug
from tasks.engine.config import PipelineConfig
from tasks.engine.plan import make_plan

REPOSITORY = Path(__file__).resolve().parents[3]

# A flow under a worker: it begins a stage once it is told to, and says what came of it.
FLOW = """
import sys, time
from pathlib import Path
from common.errors import StageFailed
from tasks.engine.child import run_in_child
from tasks.engine.config import PipelineConfig
from tasks.engine.plan import make_plan

told, said = Path(sys.argv[1]), Path(sys.argv[2])
said.with_suffix(".ready").touch()
while not told.exists():
    time.sleep(0.05)
try:
    run_in_child(make_plan(PipelineConfig(dataroot=told.parent), told.parent)[0].step, relay=print)
    text = "ran"
except Exception as error:
    text = f"{type(error).__name__}: {error}"
said.with_suffix(".part").write_text(text)
said.with_suffix(".part").rename(said)
"""

# A worker: it starts a flow and stays.
WORKER = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


def outcome(folder, *, kill_worker):
    """What a flow's stage comes to, its worker alive or killed before the stage begins."""
    told, said = folder / "told", folder / "said"
    (folder / "v1.0-mini").mkdir(exist_ok=True)  # a dataroot whose tables are missing
    (folder / "v1.0-mini" / "scene.json").write_text("[")
    env = os.environ | {"PREFECT__FLOW_RUN_ID": "a-run", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", WORKER, FLOW, str(told), str(said)]
    worker = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(said.with_suffix(".ready").exists, seconds=60)
        if kill_worker:
            worker.kill()
            worker.wait()
        told.touch()
        wait_for(said.exists, seconds=60)
        return said.read_text()
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)


def test_a_flow_without_its_worker_begins_no_stage(tmp_path):
    told = outcome(tmp_path, kill_worker=True)
    assert told.startswith("StageFailed: ingest: the Prefect worker is gone"), told


def test_a_flow_with_its_worker_hears_the_stages_own_sentence(tmp_path):
    told = outcome(tmp_path, kill_worker=False)
    assert told.startswith("DataError"), told
    assert "v1.0-mini/map.json" in told


BROKEN = """
import sys
import tasks.ingest.run
def run(*_):
    raise {error}
tasks.ingest.run.run = run
from tasks.engine import child
sys.exit(child.main())
"""


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ("TypeError('x is no y')", Bug, "ingest: TypeError: x is no y: a bug of geomim's"),
        ("RuntimeError('x has no y')", Bug, "ingest: RuntimeError: x has no y: a bug of geomim's"),
        ("MemoryError()", UserError, "ingest: no memory left: make networks, images and grids smaller"),
        ("__import__('torch').OutOfMemoryError('CUDA out of memory')", UserError, "CUDA out of memory: make"),
        (
            "__import__('torch').empty(10**15)",
            UserError,
            "ingest: can't allocate memory: you tried to allocate 4000000000000000 bytes.*: make",
        ),
        (
            "__import__('torch').empty(10**12, 10**12)",
            UserError,
            "ingest: Storage size calculation overflowed .*: make",
        ),
    ],
)
def test_a_bug_is_never_told_to_go_on(tmp_path, monkeypatch, capfd, error, kind, words):
    (tmp_path / "v1.0-mini").mkdir()
    (tmp_path / "broken.py").write_text(BROKEN.format(error=error))
    monkeypatch.setattr(child, "COMMAND", [sys.executable, str(tmp_path / "broken.py")])
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    step = make_plan(PipelineConfig(dataroot=tmp_path), tmp_path / "root")[0].step
    with pytest.raises((UserError, child.StageFailed), match=words) as raised:
        child.run_in_child(step)
    assert type(raised.value) is kind
    assert "goes on from there" not in str(raised.value)
    assert ("Traceback" in capfd.readouterr().err) == (kind is Bug)


def test_the_remedy_against_too_little_memory_names_fields_that_are_there(tmp_path):
    """Of each stage's own config; a detector's evaluation has none."""
    (tmp_path / "v1.0-mini").mkdir()
    config = PipelineConfig(dataroot=tmp_path)
    for planned in make_plan(config, tmp_path / "root"):
        told = str(child.as_told(planned.step.stage.name, planned.step.config, MemoryError()))
        named = re.findall(r"set (\w+)\.(\w+) ", told)
        assert all(hasattr(getattr(config, section), field) for section, field in named), told
        assert bool(named) == (planned.step.stage.name not in ("ingest", "evaluate")), told


@pytest.mark.parametrize(("force", "words"), [(False, "the same command"), (True, "the same command without --force")])
def test_who_was_killed_goes_on_without_force(tmp_path, monkeypatch, force, words):
    (tmp_path / "v1.0-mini").mkdir()
    (tmp_path / "killed.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setattr(child, "COMMAND", [sys.executable, str(tmp_path / "killed.py")])
    step = make_plan(PipelineConfig(dataroot=tmp_path), tmp_path / "root")[0].step
    with pytest.raises(child.StageFailed, match=f"ingest was killed by SIGKILL; {words} goes on from there"):
        child.run_in_child(step, force)


@pytest.mark.parametrize("left_by", [SystemExit, ValueError])
def test_cancelling_ends_the_children_of_all_threads(tmp_path, monkeypatch, left_by):
    """By no error, as Prefect's signal is none: an error ends none, since other stages go on."""
    (tmp_path / "v1.0-mini").mkdir()
    (tmp_path / "slow.py").write_text("import time; time.sleep(2)")
    monkeypatch.setattr(child, "COMMAND", [sys.executable, str(tmp_path / "slow.py")])
    monkeypatch.setattr(child, "_ended", threading.Event())
    step = make_plan(PipelineConfig(dataroot=tmp_path), tmp_path / "root")[0].step

    def leave(threads):
        stages.append(threads.submit(child.run_in_child, step))
        wait_for(lambda: child._running)
        raise left_by

    stages = []
    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(left_by), child.ended_by_cancelling():
            leave(threads)
        if left_by is SystemExit:
            with pytest.raises(UserError, match="ingest: stopped"):
                stages[0].result()
            with pytest.raises(UserError, match="ingest: stopped"):  # Prefect's second try
                child.run_in_child(step)
        else:
            stages[0].result()


def test_a_file_system_that_fails_is_no_mistake_of_the_users(tmp_path):
    """Nor a bug: the plan, which reads tables too, says it as the stage would."""
    (tmp_path / "v1.0-mini").mkdir()
    (tmp_path / "v1.0-mini" / "sample.json").symlink_to("/proc/self/mem")  # reading it is an input/output error
    told = outcome(tmp_path, kill_worker=False)
    assert told.startswith("FileSystemError: "), told
    assert "sample.json: the file system failed 4 times" in told
    assert "the same command goes on from there" in told
