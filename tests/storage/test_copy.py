"""Copies between roots: beside other copies, and beside whoever makes the artifact again."""

import threading

import pytest

from driver import wait_for
from storage.artifact import Artifact
from storage.copy import copy_artifact
from storage.lock import locked
from storage.manifest import Recipe

RECIPE = Recipe(stage="depth", version=1, config={}, inputs={})


def finish(root, content="result"):
    artifact = Artifact(root, "depth", RECIPE.key)
    artifact.begin(RECIPE)
    (artifact.path / "result").write_text(content)
    artifact.finish(RECIPE, {}, 1.0, {})
    return artifact


def in_background(*calls):
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def test_onto_its_own_root_there_is_nothing_to_do(tmp_path):
    artifact = finish(tmp_path / "root")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    found = []
    roots = (tmp_path / "root", tmp_path / "link")
    for thread in in_background(lambda: found.extend(copy_artifact(artifact.path, root) for root in roots)):
        thread.join(10)
    assert [count for _, count in found] == [0, 0]


def test_there_and_back_at_the_same_time(tmp_path):
    """Each would hold what the other wants, did not both take the two locks in one order."""
    a, b = finish(tmp_path / "a"), finish(tmp_path / "b")
    found, waits = [], []
    with locked(b.path, "a reader", shared=True):
        (there,) = in_background(lambda: found.append(copy_artifact(a.path, tmp_path / "b", waiting=waits.append)))
        wait_for(lambda: waits)
        (back,) = in_background(lambda: found.append(copy_artifact(b.path, tmp_path / "a", waiting=waits.append)))
        wait_for(lambda: len(waits) == 2)
    for thread in (there, back):
        thread.join(10)
    assert [count for _, count in found] == [0, 0]


def test_what_was_made_again_meanwhile_is_copied_as_it_is_now(tmp_path):
    artifact, found = finish(tmp_path / "a", "before"), []
    with locked(artifact.path, "geomim depth --force"):
        waits = []
        (thread,) = in_background(
            lambda: found.append(copy_artifact(artifact.path, tmp_path / "b", waiting=waits.append))
        )
        wait_for(lambda: waits)
        artifact.remove()
        finish(tmp_path / "a", "after it all")
    thread.join(10)
    ((copied, _),) = found
    assert (copied.path / "result").read_text() == "after it all"
    assert not list(copied.damages("all"))


def test_a_folder_without_a_finished_artifact(tmp_path):
    with pytest.raises(ValueError, match="holds no finished artifact"):
        copy_artifact(tmp_path, tmp_path / "b")
