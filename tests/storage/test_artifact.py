import json
import uuid
import warnings

import numpy as np
import pytest
import zarr

from storage import checksum
from storage import manifest as manifest_module
from storage.artifact import Artifact
from storage.bev import BevAttributes, BevWriter
from storage.damage import Damaged
from storage.manifest import MANIFEST, Recipe, contents, read_manifest


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
    assert not artifact.is_intact()
    assert artifact.progress() == (0, 0)
    with pytest.raises(FileNotFoundError, match="depth artifact is not there"):
        _ = artifact.summary


def test_a_finished_artifact_is_whole_and_says_what_it_holds(artifact, recipe):
    manifest = finish(artifact, recipe)
    assert artifact.is_intact()
    assert artifact.summary == {"points": 5}
    assert artifact.config == {"sweeps": 2}
    assert manifest.contents()["depth.zarr"] == (1, 5)
    assert artifact.path.name == recipe.key[:16]
    assert list(artifact.damages("all")) == []


@pytest.mark.parametrize("damage", ["shorter", "gone"])
def test_a_changed_folder_is_no_hit(artifact, recipe, damage):
    finish(artifact, recipe)
    chunk = artifact.path / "depth.zarr" / "chunk"
    if damage == "shorter":
        chunk.write_bytes(b"1")
    else:
        chunk.unlink()
    assert not artifact.is_intact()
    (found,) = artifact.damages()
    assert str(found) == f"depth.zarr/chunk {'is gone' if damage == 'gone' else 'has 1 bytes, not 5'}"


def test_files_of_the_users_own_do_no_harm_and_are_told(artifact, recipe):
    finish(artifact, recipe)
    (artifact.path / "notes.md").write_text("mine")
    (artifact.path / "depth.zarr" / "b.pth").write_text("mine")
    assert artifact.is_intact()
    assert list(artifact.damages("all")) == []
    assert artifact.extras() == ["depth.zarr/b.pth", "notes.md"]


def test_consolidated_metadata_do_no_harm(artifact, recipe, tmp_path):
    artifact.begin(recipe)
    attributes = BevAttributes((-2.0, -2.0, -1.0, 2.0, 2.0, 1.0), (1.0, 1.0), part_size=1)
    BevWriter(artifact.path / "bev.zarr", np.array(["a"]), (2, 4, 4), attributes).write(0, np.ones((1, 2, 4, 4)))
    artifact.finish(recipe, {}, 1.0, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(str(artifact.path / "bev.zarr"))
    assert list(artifact.damages("all")) == []
    file = artifact.path / "bev.zarr" / "zarr.json"
    file.write_text(file.read_text().replace("LIDAR_TOP", "LIDAR_TAP"))
    assert [found.name for found in artifact.damages()] == ["bev.zarr/zarr.json"]


def test_any_flipped_bit_is_found(artifact, recipe):
    finish(artifact, recipe)
    for file in [p for p in artifact.path.rglob("*") if p.is_file()]:
        data = file.read_bytes()
        for place in range(0, len(data), 7):
            file.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
            assert list(artifact.damages("all")), (file.name, place)
        file.write_bytes(data)
    assert list(artifact.damages("all")) == []


def test_what_is_cheap_to_read_is_checked_before_use(artifact, recipe, monkeypatch):
    monkeypatch.setattr(manifest_module, "SMALL_STORE", 1000)
    artifact.begin(recipe)
    attributes = BevAttributes((-2.0, -2.0, -1.0, 2.0, 2.0, 1.0), (1.0, 1.0), part_size=1)
    maps = np.random.default_rng(0).normal(size=(1, 2, 4, 4))
    BevWriter(artifact.path / "bev.zarr", np.array(["a"]), (2, 4, 4), attributes).write(0, maps)
    (artifact.path / "weights").write_bytes(b"12345")
    artifact.finish(recipe, {}, 1.0, {})
    shard = next(p for p in (artifact.path / "bev.zarr" / "value" / "c").rglob("*") if p.is_file())
    for file in (artifact.path / "weights", shard):
        data = file.read_bytes()
        file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert list(artifact.damages("sizes")) == []
    assert [found.name for found in artifact.damages("small")] == ["weights"]
    assert len(list(artifact.damages("all"))) == 2
    for name in ("zarr.json", "value/zarr.json", "token/c/0"):  # of a big store too: with these it is read
        file = artifact.path / "bev.zarr" / name
        data = file.read_bytes()
        file.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
        assert {found.name for found in artifact.damages("small")} == {"weights", f"bev.zarr/{name}"}
        file.write_bytes(data)
    monkeypatch.setattr(manifest_module, "SMALL_STORE", 10**9)
    assert len(list(artifact.damages("small"))) == 2


def test_what_nobody_computes_with_makes_no_work_be_done_again(artifact, recipe):
    artifact.begin(recipe)
    for name in ("metrics.jsonl", "events.out.tfevents.1.host", "depth.png", "report.md", "weights.safetensors"):
        (artifact.path / name).write_text(name)
    artifact.finish(recipe, {}, 1.0, {})
    for name in ("metrics.jsonl", "events.out.tfevents.1.host", "depth.png", "report.md"):
        (artifact.path / name).unlink()
    assert len(list(artifact.damages())) == 4
    assert artifact.is_intact()
    (artifact.path / "weights.safetensors").unlink()
    assert not artifact.is_intact()


def test_half_a_manifest_is_none(artifact, recipe):
    finish(artifact, recipe)
    text = (artifact.path / MANIFEST).read_text()
    (artifact.path / MANIFEST).write_text(text[: len(text) // 2])
    assert artifact.manifest() is None
    assert artifact.has_manifest()
    assert not artifact.is_intact()
    with pytest.raises(Damaged, match=r"manifest.json: is not what was written"):
        read_manifest(artifact.path)


def test_a_manifest_of_another_geomim_is_told(artifact, recipe):
    finish(artifact, recipe)
    content = json.loads((artifact.path / MANIFEST).read_text()) | {"format": 1}
    (artifact.path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="has format 1, not 2: another geomim made it"):
        read_manifest(artifact.path)
    assert not artifact.is_intact()


def test_training_progress_is_shown(artifact, recipe):
    artifact.begin(recipe)
    artifact.write_progress(3, 10)
    assert artifact.progress() == (3, 10)
    artifact.finish(recipe, {}, 1.0, {})
    assert "progress.json" not in contents(artifact.path)


def test_what_kills_left_behind_goes_when_it_is_finished(artifact, recipe):
    artifact.begin(recipe)
    unique = uuid.uuid4().hex
    (artifact.path / f".bev.zarr.{unique}" / "value").mkdir(parents=True)
    (artifact.path / f".recipe.json.{unique}").write_text("x")
    (artifact.path / ".checkpoint.pt.before").write_text("x")
    (artifact.path / "bev.zarr" / "value" / "c").mkdir(parents=True)
    (artifact.path / "bev.zarr" / "value" / "c" / f".0.{unique}").write_text("x")
    (artifact.path / "bev.zarr" / "value" / "c" / "0").write_text("x")
    manifest = artifact.finish(recipe, {}, 1.0, {}, ("bev.zarr", ".checkpoint.pt*"))
    assert sorted(manifest.files) == ["bev.zarr/value/c/0", "recipe.json"]
    assert [p.name for p in artifact.path.rglob(".*")] == []


def test_a_users_files_in_unfinished_work_stay_the_users(artifact, recipe):
    """They are neither deleted nor written down: changed or gone later, they damage nothing."""
    artifact.begin(recipe)
    (artifact.path / "bev.zarr").mkdir()
    own = ["notes.txt", ".notes", ".bev.zarr.old", "bev.zarr.damaged-20260101-000000", "folder/.hidden"]
    for name in ("bev.zarr/zarr.json", *own):
        (artifact.path / name).parent.mkdir(exist_ok=True)
        (artifact.path / name).write_text("x")
    (artifact.path / "to nothing").symlink_to("nothing")
    manifest = artifact.finish(recipe, {}, 1.0, {}, ("bev.zarr",))
    assert sorted(manifest.files) == ["bev.zarr/zarr.json", "recipe.json"]
    assert all((artifact.path / name).exists() for name in own)
    assert artifact.extras() == ["bev.zarr.damaged-20260101-000000", "notes.txt"]
    (artifact.path / "notes.txt").write_text("more")
    assert artifact.is_intact()


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


def test_what_is_set_aside_says_so_and_is_kept(artifact, recipe):
    for count in (1, 2):
        finish(artifact, recipe)
        assert artifact.set_aside().name.startswith(f"{recipe.key[:16]}.damaged-2")
        assert not artifact.path.exists()
        aside = list(artifact.path.parent.glob("*.damaged-*"))
        assert len(aside) == count
        assert all((folder / "depth.zarr" / "chunk").read_bytes() == b"12345" for folder in aside)


@pytest.mark.parametrize("size", [0, 3, 4, 5, 100, 6, 9])
def test_a_files_sum_tells_files_apart_that_end_with_their_own_checksum(tmp_path, monkeypatch, size):
    """A CRC32C of such a file alone is the same for all of them, and two exchanged chunks would be whole."""
    monkeypatch.setattr(checksum, "PIECE", 5)
    rng = np.random.default_rng(0)
    sums = set()
    for number in range(8):
        file = tmp_path / str(number)
        file.write_bytes(checksum.with_crc(bytes([number]) * bool(size) + rng.bytes(size)))
        assert checksum.crc_of_file(file) == checksum.CRC_RESIDUE
        sums.add(checksum.sum_of_file(file))
    assert len(sums) == (8 if size else 1)
    data = bytearray(file.read_bytes())
    for place in range(len(data)):
        data[place] ^= 16
        file.write_bytes(data)
        assert checksum.sum_of_file(file) not in sums
        data[place] ^= 16
