import json

import pytest

from storage.artifact import MANIFEST, Artifact, Recipe, contents


@pytest.fixture
def recipe():
    return Recipe(stage="depth", version=1, config={"sweeps": 2}, inputs={"ingest": "ab" * 32})


@pytest.fixture
def artifact(tmp_path, recipe):
    return Artifact(tmp_path, "depth", recipe.key)


def finish(artifact, recipe):
    artifact.begin(recipe)
    (artifact.path / "depth.zarr").mkdir(exist_ok=True)
    (artifact.path / "depth.zarr" / "chunk").write_bytes(b"12345")
    return artifact.finish(recipe, {"points": 5}, 1.0, {"zarr": "3"})


def test_without_a_manifest_it_is_not_there(artifact, recipe):
    artifact.begin(recipe)
    assert not artifact.is_whole()
    assert artifact.progress() == (0, 0)
    with pytest.raises(FileNotFoundError, match="depth artifact is not there"):
        _ = artifact.summary


def test_a_finished_artifact_is_whole_and_says_what_it_holds(artifact, recipe):
    manifest = finish(artifact, recipe)
    assert artifact.is_whole()
    assert artifact.summary == {"points": 5}
    assert artifact.config == {"sweeps": 2}
    assert manifest.contents["depth.zarr"] == (1, 5)
    assert artifact.path.name == recipe.key[:16]


@pytest.mark.parametrize("damage", ["shorter", "gone", "more"])
def test_a_changed_folder_is_no_hit(artifact, recipe, damage):
    finish(artifact, recipe)
    chunk = artifact.path / "depth.zarr" / "chunk"
    if damage == "shorter":
        chunk.write_bytes(b"1")
    elif damage == "gone":
        chunk.unlink()
    else:
        (artifact.path / "stranger").write_text("?")
    assert not artifact.is_whole()


def test_half_a_manifest_is_none(artifact, recipe):
    finish(artifact, recipe)
    text = (artifact.path / MANIFEST).read_text()
    (artifact.path / MANIFEST).write_text(text[: len(text) // 2])
    assert artifact.manifest() is None
    assert not artifact.is_whole()


def test_training_progress_is_shown(artifact, recipe):
    artifact.begin(recipe)
    artifact.write_progress(3, 10)
    assert artifact.progress() == (3, 10)
    artifact.finish(recipe, {}, 1.0, {})
    assert "progress.json" not in contents(artifact.path)


def test_a_number_that_is_none_stands_as_null(artifact, recipe):
    """The evaluation has errors that do not exist (the orientation of a cone): JSON has null for them."""
    artifact.begin(recipe)
    artifact.finish(recipe, {"error": float("nan")}, 1.0, {})
    assert artifact.summary == {"error": None}
    assert "NaN" not in (artifact.path / MANIFEST).read_text()


def test_every_part_of_the_recipe_changes_the_key(recipe):
    changes = {
        "stage": "other",
        "version": 2,
        "config": {"sweeps": 3},
        "inputs": {"ingest": "cd" * 32},
        "files": {"weights": "ef"},
    }
    keys = {recipe.model_copy(update={name: value}).key for name, value in changes.items()}
    assert len(keys | {recipe.key}) == len(changes) + 1


def test_the_recipe_on_disk_gives_the_key(artifact, recipe):
    artifact.begin(recipe)
    assert Recipe(**json.loads((artifact.path / "recipe.json").read_text())).key == artifact.key


def test_remove_leaves_nothing(artifact, recipe):
    finish(artifact, recipe)
    artifact.remove()
    assert list(artifact.path.parent.iterdir()) == []
