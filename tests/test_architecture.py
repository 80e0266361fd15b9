"""docs/architecture.md names what is there, and its picture is what the code is now."""

import importlib.util
import re
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()
COUNT = re.compile(r'(class="faint count"[^>]*>)([\d,]+)')
REDRAW = "run `python docs/architecture.py` and look at the picture"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("architecture", REPOSITORY / "docs" / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def counts(svg: str) -> list[int]:
    return [int(match[2].replace(",", "")) for match in COUNT.finditer(svg)]


def test_the_picture_is_what_the_script_draws(script):
    """But for the lines of code, which would change with every commit: they may be off by a third, or a file or two."""
    committed, now = script.SVG.read_text(), script.draw()
    assert COUNT.sub(r"\1", committed) == COUNT.sub(r"\1", now), REDRAW
    assert counts(committed) == [pytest.approx(count, rel=0.33, abs=300) for count in counts(now)], REDRAW


def test_the_picture_has_every_room_and_stage(script):
    svg = script.draw()
    for layer in script.layers():
        for room in layer:
            assert f">{room}/<" in svg
    assert svg.count('class="stage stage-edge-line"') == 7


def test_arrows_that_follow_from_others_are_left_out(script):
    edges = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert script.reduced(edges) == [("a", "b"), ("b", "c"), ("c", "d")]


def test_what_the_page_names_is_there():
    named = re.findall(r"`((?:[\w.-]+/)+(?:[\w-]+\.\w+)?)`", PAGE)
    assert len(named) > 30
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_no_files_import_each_other_in_a_circle():
    """Lazy imports count. A file run as a program may import itself."""
    rooms = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    graph = grimp.build_graph(*rooms, cache_dir=None)
    imports = {file: graph.find_modules_directly_imported_by(file) - {file} for file in graph.modules}
    assert list(TopologicalSorter(imports).static_order())  # raises CycleError, which names the circle
