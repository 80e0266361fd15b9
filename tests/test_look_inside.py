"""docs/look_inside.ipynb: its cells run on a finished run, and what it keeps is what they show."""

import json
import re
import runpy
from pathlib import Path

import pytest

from finished_run import common, finished, world

__all__ = ["common", "finished", "world"]

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = DOCS / "look_inside.ipynb"
MOST = 400_000  # bytes: it is read on the web, and kept in each clone


@pytest.fixture(scope="module")
def notebook():
    return json.loads(NOTEBOOK.read_text())


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(DOCS / "look_inside.py"))


@pytest.fixture(scope="module")
def ran(notebook, script, finished, world, tmp_path_factory):
    """Of a folder in which a run is finished, as `make demo` leaves it."""
    folder = tmp_path_factory.mktemp("notebook")
    for name, target in (("artifacts", finished[0].root), ("data/simulated", world)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(target)
    (folder / "docs").mkdir()
    return script["run"](notebook, folder)


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kinds(cell):
    """What a cell shows: printed words, or media types."""
    return [sorted(output["data"]) if "data" in output else output["name"] for output in cell["outputs"]]


def test_every_cell_runs_and_shows_what_is_kept(notebook, ran):
    """In kind: the kept outputs are of another run."""
    assert [cell["source"] for cell in code(ran)] == [cell["source"] for cell in code(notebook)]
    assert [kinds(cell) for cell in code(ran)] == [kinds(cell) for cell in code(notebook)]


def test_what_is_kept_is_whole_small_and_of_no_machine(notebook):
    text = NOTEBOOK.read_text()
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert [cell["execution_count"] for cell in code(notebook)] == [*range(1, len(code(notebook)) + 1)]
    assert all(cell["outputs"] for cell in code(notebook))
    assert len(text) < MOST
    assert re.findall(r"[^\w.](/(?:home|root|tmp|work|Users|mnt|data|private|var)/[^\s\"<]*)", text) == []
    assert '"output_type": "error"' not in text


def test_what_it_says_is_there(notebook, ran):
    """It opens, draws, compares and plots; and its links lead somewhere."""
    shown = [kind for cell in code(ran) for kind in kinds(cell)]
    assert shown.count(["text/html", "text/plain"]) >= 2
    assert shown.count(["image/png", "text/plain"]) == 3
    assert ["image/jpeg", "text/plain"] in shown
    assert "the same: True" in json.dumps(code(ran))
    words = "".join(line for cell in notebook["cells"] if cell["cell_type"] == "markdown" for line in cell["source"])
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", words)
    assert len(targets) > 3
    assert [target for target in targets if not (DOCS / target).exists()] == []


def test_as_jupyter_keeps_it(script):
    """A printed line, the value of the last line, an error that goes on to who runs it."""
    outputs = script["_outputs"]("print('a')\nprint('b')\n1 + 1", {}, 3)
    assert outputs == [
        {"output_type": "stream", "name": "stdout", "text": ["a\n", "b\n"]},
        {"output_type": "execute_result", "execution_count": 3, "data": {"text/plain": ["2"]}, "metadata": {}},
    ]
    assert script["_outputs"]("value = 1", {}, 1) == []
    with pytest.raises(ZeroDivisionError):
        script["_outputs"]("1 / 0", {}, 1)
