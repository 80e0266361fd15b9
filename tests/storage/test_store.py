"""All artifacts of a root: what is there, what is needed, what is damaged, and copies of them."""

import os
import shutil
import time
import uuid

import numpy as np
import pytest

from storage.artifact import Artifact
from storage.bev import BevAttributes, BevReader, BevWriter
from storage.copy import copy_artifact
from storage.damage import Damaged
from storage.leases import leases_folder
from storage.lock import locked
from storage.manifest import MANIFEST, Recipe
from storage.store import check, leftovers, named_in, newer_than, read_pin, stored_artifacts, with_inputs, write_pin

ATTRIBUTES = BevAttributes((-2.0, -2.0, -1.0, 2.0, 2.0, 1.0), (1.0, 1.0), part_size=1)
MAPS = np.random.default_rng(0).normal(size=(4, 1, 2, 4, 4))


def made(root, stage, inputs=(), finish=True, config=None, **key):
    recipe = Recipe(stage=stage, version=1, config=key, inputs={})
    artifact = Artifact(root, stage, recipe.key)
    artifact.begin(recipe, {a.stage: a for a in inputs})
    writer = BevWriter(artifact.path / "bev.zarr", np.array(list("abcd")), (2, 4, 4), ATTRIBUTES)
    for part in range(4):
        writer.write(part, MAPS[part])
    (artifact.path / "weights").write_bytes(b"12345")
    if finish:
        step = {"inputs": {a.stage: [a.stage, a.key] for a in inputs}, "config": config or {}}
        artifact.finish(recipe, {}, 1.0, {"step": step})
    return artifact


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def test_what_a_root_holds(root):
    first = made(root, "ingest")
    second = made(root, "teacher", [first])
    unfinished = made(root, "depth", finish=False)
    third = made(root, "fit")
    aside = third.set_aside()
    (second.path / MANIFEST).write_text("{")
    states = {entry.path: entry.state for entry in stored_artifacts(root)}
    assert states == {
        first.path: "finished",
        second.path: "unreadable",
        unfinished.path: "unfinished",
        aside: "set aside",
    }


def test_what_is_needed_is_what_it_was_made_from(root):
    ingest = made(root, "ingest")
    teachers = [made(root, "teacher", [ingest], seed=seed) for seed in (0, 1)]
    pretrain = made(root, "pretrain", [ingest, teachers[0]])
    everything = stored_artifacts(root)
    assert with_inputs(everything, [pretrain.path]) == {pretrain.path, teachers[0].path, ingest.path}
    old = time.time() - 10 * 86_400
    os.utime(ingest.path / MANIFEST, (old, old))
    assert set(newer_than(stored_artifacts(root), 7)) == {pretrain.path, *(t.path for t in teachers)}


def test_unfinished_work_needs_what_it_reads_and_is_as_new_as_its_last_part(root):
    ingest = made(root, "ingest")
    depth = made(root, "depth", [ingest], finish=False)
    assert with_inputs(stored_artifacts(root), [depth.path]) == {depth.path, ingest.path}
    old = time.time() - 10 * 86_400
    for path in [depth.path, *depth.path.rglob("*")]:
        os.utime(path, (old, old))
    assert depth.path not in newer_than(stored_artifacts(root), 7)
    os.utime(depth.path / "bev.zarr" / "done" / "c" / "3")
    assert depth.path in newer_than(stored_artifacts(root), 7)


def test_what_is_set_aside_is_new(root):
    artifact = made(root, "ingest")
    old = time.time() - 10 * 86_400
    for path in [artifact.path, *artifact.path.rglob("*")]:
        os.utime(path, (old, old))
    assert newer_than(stored_artifacts(root), 7) == []
    aside = artifact.set_aside()
    assert newer_than(stored_artifacts(root), 7) == [aside]


def test_weights_that_a_config_names_are_needed(root):
    pretrain, other = made(root, "pretrain"), made(root, "pretrain", seed=1)
    finetune = made(root, "finetune", config={"init": f"{pretrain.path}/backbone.safetensors"})
    assert with_inputs(stored_artifacts(root), [finetune.path]) == {finetune.path, pretrain.path}
    assert named_in({"teacher": {"weights": str(other.path / "x.pth")}}, root) == [other.path]


def test_a_folder_of_another_kind_is_no_artifact(root):
    (root / "exports" / "site").mkdir(parents=True)
    (root / "exports" / "site" / MANIFEST).write_text('{"name": "a web site"}')
    assert stored_artifacts(root) == []


def test_what_killed_runs_left(root):
    artifact = made(root, "teacher")
    folder = artifact.path.parent
    (folder / ".trash-0123").mkdir()
    (folder / ".copy-0123").mkdir()
    (folder / ".0123.lock").touch()
    (folder / ".4567.leases").mkdir()
    leases_folder(artifact.path).mkdir()
    (root / f"..digests.json.{uuid.uuid4().hex}").touch()  # as `write_json` names it
    (root / ".digests.json").touch()
    with locked(artifact.path, "x"):
        found = leftovers(root)
    assert [path.name[:12] for path in found] == [
        "..digests.js",
        ".0123.lock",
        ".4567.leases",
        ".copy-0123",
        ".trash-0123",
    ]


def test_a_pin_has_a_note(root):
    artifact = made(root, "teacher")
    assert read_pin(artifact.path) is None
    write_pin(artifact.path, "the paper's")
    assert read_pin(artifact.path) == "the paper's"
    assert artifact.is_intact()
    assert list(artifact.damages("all")) == []
    assert stored_artifacts(root)[0].pinned


def test_every_damage_is_found_and_a_sample_of_parts_reads_some(root):
    artifact = made(root, "teacher")
    assert check(artifact.path) == []
    shard = BevReader(artifact.path / "bev.zarr").arrays["value"].file(2)
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert [damage.name for damage in check(artifact.path)] == ["bev.zarr/value/c/2/0/0/0"]
    assert check(artifact.path, sample=0) == []
    found = {len(check(artifact.path, sample=2)) for _ in range(40)}
    assert found == {0, 1}
    assert len(check(artifact.path, sample=4)) == 1
    (artifact.path / "weights").write_bytes(b"12346")
    assert [damage.name for damage in check(artifact.path, sample=0)] == ["weights"]


def test_exchanged_parts_of_unfinished_work_are_found(root):
    artifact = made(root, "teacher", finish=False)
    assert check(artifact.path) == []
    value = artifact.path / "bev.zarr" / "value" / "c"
    (value / "0").rename(value / "x"), (value / "1").rename(value / "0"), (value / "x").rename(value / "1")
    assert [damage.what for damage in check(artifact.path)] == [
        "holds something else than sample a",
        "holds something else than sample b",
    ]


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_copy_is_whole_and_made_once(root, tmp_path):
    artifact = made(root, "teacher")
    copied, count = copy_artifact(artifact.path, tmp_path / "other")
    assert copied == Artifact(tmp_path / "other", "teacher", artifact.key)
    assert files(copied.path) == files(artifact.path)
    assert count == artifact.manifest().bytes
    assert copy_artifact(artifact.path, tmp_path / "other")[1] == 0


def test_an_interrupted_copy_goes_on(root, tmp_path):
    artifact = made(root, "teacher")
    seen = []

    def stop(name):
        seen.append(name)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_artifact(artifact.path, tmp_path / "other", stop)
    target = Artifact(tmp_path / "other", "teacher", artifact.key)
    assert not target.path.exists()
    (half,) = target.path.parent.glob(".copy-*")
    first = half / seen[0]
    first.write_bytes(first.read_bytes()[:-1] + b"?")  # what was copied is checked again
    before = {p: p.stat().st_mtime_ns for p in half.rglob("*") if p.is_file() and p != first}
    copied, count = copy_artifact(artifact.path, tmp_path / "other")
    assert files(copied.path) == files(artifact.path)
    assert count < artifact.manifest().bytes
    assert all((copied.path / p.relative_to(half)).stat().st_mtime_ns == time for p, time in before.items())


def test_a_damaged_artifact_is_not_copied(root, tmp_path):
    artifact = made(root, "teacher")
    (artifact.path / "weights").write_bytes(b"12346")
    with pytest.raises(Damaged, match=r"weights: is not what was written"):
        copy_artifact(artifact.path, tmp_path / "other")
    assert not Artifact(tmp_path / "other", "teacher", artifact.key).path.exists()
    shutil.rmtree(artifact.path)
    with pytest.raises(ValueError, match="holds no finished artifact"):
        copy_artifact(artifact.path, tmp_path / "other")


def test_what_stands_in_a_copys_place_is_kept(root, tmp_path):
    artifact = made(root, "teacher")
    copied, _ = copy_artifact(artifact.path, tmp_path / "other")
    (copied.path / "weights").write_bytes(b"1")
    copied, _ = copy_artifact(artifact.path, tmp_path / "other")
    assert copied.is_intact()
    (aside,) = copied.path.parent.glob("*.damaged-*")
    assert (aside / "weights").read_bytes() == b"1"
