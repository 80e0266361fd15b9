"""A finished run with detectors that find something, and its report."""

import json
import shutil
from pathlib import Path

import pytest

from driver import Cli
from gallery.opened import open_artifact
from report_pages import Page, evaluated, report


@pytest.fixture(scope="session")
def scored(finished, tmp_path_factory) -> Cli:
    """The finished run with such detectors. Only to be read."""
    done, _ = finished
    root = tmp_path_factory.mktemp("scored") / "artifacts"
    shutil.copytree(done.root, root, ignore=shutil.ignore_patterns(".prefect*"))
    cli = Cli(done.dataroot, root)
    for seed, (name, noise) in enumerate((("evaluate", 0.5), ("evaluate-baseline", 0.9))):
        opened = open_artifact(cli.path(name), done.dataroot)
        evaluated(opened.step.artifact, opened.index, done.dataroot, noise, seed)
    return cli


@pytest.fixture
def own(scored, tmp_path) -> Cli:
    """The same in a root of the test's own."""
    return Cli(scored.dataroot, Path(shutil.copytree(scored.root, tmp_path / "artifacts")))


@pytest.fixture(scope="session")
def page(scored, tmp_path_factory) -> Page:
    return report(scored, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="session")
def metrics(scored) -> dict[str, dict]:
    """Arm -> its scores as the evaluation wrote them."""
    names = {"pretrained": "evaluate", "baseline": "evaluate-baseline"}
    return {arm: json.loads((scored.path(name) / "metrics.json").read_text()) for arm, name in names.items()}
