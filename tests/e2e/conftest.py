"""One tiny simulated world and one artifact store for all end-to-end tests."""

import shutil

import pytest

from driver import Cli
from finished_run import common, finished, world

__all__ = ["common", "finished", "world"]


@pytest.fixture
def cli(finished, tmp_path):
    """The command line on a root of the test's own, in which every stage is cached, with what Prefect remembers."""
    done, _ = finished
    shutil.copytree(done.root, tmp_path / "artifacts")  # the database, too: to set up an empty one takes seconds
    return Cli(done.dataroot, tmp_path / "artifacts")
