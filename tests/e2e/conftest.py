"""One tiny simulated world and one artifact store for all end-to-end tests."""

import shutil
import subprocess

import pytest
from driver import GEOMIM, TINY, Cli, environment


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A simulated dataroot, made by the command line."""
    folder = tmp_path_factory.mktemp("world") / "data"
    subprocess.run([GEOMIM, "simulate", folder, "--config", TINY], check=True, env=environment(), capture_output=True)
    return folder


@pytest.fixture(scope="session")
def finished(world, tmp_path_factory):
    """A root in which the whole pipeline has run once, and what that run printed."""
    cli = Cli(world, tmp_path_factory.mktemp("finished") / "artifacts")
    return cli, cli("run")


@pytest.fixture
def cli(finished, tmp_path):
    """The command line on a root of the test's own, in which every stage is cached."""
    done, _ = finished
    shutil.copytree(done.root, tmp_path / "artifacts", ignore=shutil.ignore_patterns(".prefect*"))
    return Cli(done.dataroot, tmp_path / "artifacts")
