"""What is said where py123d is not installed; needs no py123d."""

import sys
import tomllib
from pathlib import Path

import pytest

from common.errors import UserError
from dataroot.imported.package import PACKAGES
from dataroot.imported.write import import_logs


def test_the_extra_is_what_the_sentence_says():
    pyproject = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert tuple(pyproject["project"]["optional-dependencies"]["import"]) == PACKAGES


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "py123d", None)
    with pytest.raises(UserError, match=r"needs py123d.*pip install --no-deps 'py123d==[\d.]+' 'pyarrow<26' "):
        import_logs(tmp_path, tmp_path / "world")
    assert not (tmp_path / "world").exists()
