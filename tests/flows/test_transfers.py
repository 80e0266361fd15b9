"""`geomim push` and `pull`: what is meant by a word, what is printed, and what is refused."""

import json

import pytest

from small_artifacts import small_teacher
from storage.manifest import MANIFEST, Recipe

INGEST = Recipe(stage="ingest", version=1, config={}, inputs={})


@pytest.fixture
def root(tmp_path):
    """An ingest, and a teacher that was made from it."""
    ingest = small_teacher(tmp_path / "root", recipe=INGEST)
    small_teacher(tmp_path / "root", 1, Recipe(stage="teacher", version=1, config={}, inputs={"ingest": ingest.key}))
    return tmp_path / "root"


@pytest.fixture
def url(tmp_path):
    return f"file://{tmp_path}/objects"


def found(folder):
    return sorted(path.parent.parent.name for path in folder.glob(f"*/*/{MANIFEST}"))


@pytest.mark.parametrize(
    ("word", "inputs", "expected"),
    [
        ("KEY", [], ["teacher"]),
        ("KEY", ["--inputs"], ["ingest", "teacher"]),
        ("FOLDER", ["--inputs"], ["ingest", "teacher"]),
        ("ingest", [], ["ingest"]),
        ("FOLDER/..", [], ["teacher"]),
        ("ROOT", [], ["ingest", "teacher"]),
    ],
)
def test_what_is_pushed(root, url, geomim, tmp_path, word, inputs, expected):
    (teacher,) = root.glob("teacher/*")
    word = {"KEY": teacher.name, "FOLDER": teacher, "FOLDER/..": teacher.parent, "ROOT": root}.get(word, word)
    code, output, _ = geomim("push", word, url, *inputs, "--root", root)
    assert code == 0
    assert [line.split()[-1].split("/")[-2] for line in output.splitlines()] == expected
    assert found(tmp_path / "objects") == expected


def test_what_is_pulled(root, url, geomim, tmp_path):
    (teacher,) = root.glob("teacher/*")
    geomim("push", root, url)
    for word, inputs, expected in (
        (teacher.name[:6], [], ["teacher"]),
        (f"teacher/{teacher.name}", ["--inputs"], ["ingest", "teacher"]),
        ("ingest", [], ["ingest"]),
        ("all", [], ["ingest", "teacher"]),
    ):
        to = tmp_path / f"to-{word.replace('/', '-')}{len(inputs)}"
        code, output, _ = geomim("pull", word, url, *inputs, "--root", to, "--json")
        assert code == 0
        rows = json.loads(output)
        assert [row["stage"] for row in rows] == expected
        assert all(row["moved"] == row["bytes"] > 0 for row in rows)
        assert found(to) == expected
    assert geomim("pull", "all", url, "--root", to)[1].count("is there") == 2
    assert geomim("verify", "--root", to)[0] == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("push", "beef0123", "URL"), "beef0123: names no finished artifact: give its folder or key, a stage"),
        (("push", "ingest", "ftp://x"), "ftp://x: is no object root; write s3://BUCKET/PREFIX"),
        (("pull", "beef0123", "URL"), "has no finished artifact beef0123; name a key, a stage, or all"),
        (("pull", "all", "URL", "--root", "s3://b/x"), "--root s3://b/x: name a folder of this machine"),
    ],
)
def test_a_mistake_is_one_sentence(root, url, geomim, words, told):
    words = [url if word == "URL" else word for word in words]
    code, _, errors = geomim(*words, *(() if "--root" in words else ("--root", root)))
    assert code == 2
    assert told in errors
    assert len(errors.splitlines()) == 1


def test_du_of_an_object_root_is_of_its_mirror(root, url, geomim, tmp_path, monkeypatch):
    geomim("push", "ingest", url, "--root", root)
    monkeypatch.setenv("GEOMIM_CACHE", str(tmp_path / "cache"))
    code, output, _ = geomim("du", "--root", url, "--json")
    assert (code, json.loads(output)["artifacts"]) == (0, [])
