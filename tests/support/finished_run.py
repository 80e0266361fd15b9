"""Fixtures: one tiny simulated world and one artifact store, made once by the real command line, for many tests."""

import os
import pickle
import subprocess

import pytest

from driver import GEOMIM, TINY, Cli, environment
from storage.lock import locked


@pytest.fixture(scope="session")
def world(common):
    """A simulated dataroot, made by the command line."""
    return common[0].dataroot


@pytest.fixture(scope="session")
def finished(common):
    """A root in which the whole pipeline has run once, and what that run printed. Only to be read."""
    return common


@pytest.fixture(scope="session")
def common(tmp_path_factory):
    """Made by the first of pytest's processes that asks for it, and the others'."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    cli, told = Cli(folder / "data", folder / "artifacts"), folder / "told"
    with locked(folder, "the tests"):
        if not told.exists():
            words = [GEOMIM, "simulate", cli.dataroot, "--config", TINY]
            subprocess.run(words, check=True, env=environment(), capture_output=True)
            told.write_bytes(pickle.dumps(cli("run")))
    return cli, pickle.loads(told.read_bytes())
