"""What holds for all tests."""

import gc
import multiprocessing
from multiprocessing import forkserver
from pathlib import Path

import pytest
from hypothesis import settings

from common.cores import available_cores

# A busy machine is no fault of the code's: hangs end by pytest's own timeout.
settings.register_profile("geomim", deadline=None)
settings.load_profile("geomim")

TESTS = Path(__file__).parent

# What begins first, where several processes share the tests: the file that makes what all of e2e reads, the one that
# waits most, and long ones that need neither, so that nobody waits for what is being made; then the rest of the long.
FIRST = (
    "e2e/test_run.py",
    "e2e/test_deployments.py",
    "tasks/pretrain/test_pretrain_run.py",
    "tasks/finetune/test_finetune_run.py",
    "e2e/test_kill.py",
    "e2e",
    "tasks",
)


@pytest.fixture(scope="session")
def forks():
    """A context of multiprocessing: forks of one process that has imported what ranks would import for seconds.

    They compute with one thread each.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["torch._dynamo", "tasks.teacher.fit", "tasks.pretrain.run", "tasks.finetune.run"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    return server


@pytest.fixture
def forked_ranks(forks, monkeypatch):
    """Ranks that are such forks.

    For tests of what ranks compute; how a user's ranks are started, and end, training/test_ranks.py and e2e see.
    """
    monkeypatch.setattr("training.ranks.SharingContext", lambda threads: forks)


def pytest_xdist_auto_num_workers():
    """One process more than there are cores: tests wait for servers and for processes that they have killed."""
    return available_cores() + 1


def pytest_collection():
    """No search for garbage among what is imported now and stays: it takes a fifth of the collection."""
    gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: place(item.path.relative_to(TESTS).as_posix()))


def place(file: str) -> int:
    """Where in FIRST a test file stands, or behind it."""
    return next((place for place, name in enumerate(FIRST) if file.startswith(name)), len(FIRST))
