"""A root that mirrors an object root: what comes, and what counts as damage there."""

import pytest

from object_roots import brought, bucket, maps, mirror, s3
from small_artifacts import RECIPE, small_teacher
from storage.bev import BevReader
from storage.copy import copy_artifact
from storage.damage import Damaged
from storage.manifest import read_manifest, shards
from storage.mirror import mirror_at, mirror_of
from storage.store import check
from storage.transfer import is_sent, pull

__all__ = ["brought", "bucket", "maps", "mirror", "s3"]


def test_an_url_has_one_mirror(mirror, bucket, tmp_path):
    assert mirror_at(f"{bucket}/") == mirror
    assert mirror_of(mirror.root) == mirror
    assert mirror_of(tmp_path) is None
    assert mirror_at(f"{bucket}/more").root != mirror.root


def test_an_artifact_comes_without_its_shards_and_is_whole(mirror, brought):
    names = shards(read_manifest(brought.path))
    assert len(names) == 6
    assert not any((brought.path / name).exists() for name in names)
    assert brought.is_intact()
    assert is_sent(brought.path)
    assert check(brought.path) == []
    gate = brought.path / "gate.json"
    for damage in (gate.unlink, lambda: gate.write_bytes(gate.read_bytes().swapcase())):
        damage()
        assert [damage.name for damage in check(brought.path)] == ["gate.json"]
        mirror.bring(brought)
        assert check(brought.path) == []


def test_a_shard_that_is_gone_of_what_nobody_has_is_damage(mirror, tmp_path):
    artifact = small_teacher(mirror.root)
    (name, *_) = sorted(shards(read_manifest(artifact.path)))
    (artifact.path / name).unlink()
    assert not artifact.is_intact()
    with pytest.raises(Damaged, match="is gone"):
        BevReader(artifact.path / "bev.zarr")[0]


def test_the_rest_is_brought_by_a_pull_of_all(mirror, brought, tmp_path):
    with pytest.raises(ValueError, match="`geomim pull` brings it all"):
        copy_artifact(brought.path, tmp_path / "copy")
    _, count = pull(mirror.remote, "teacher", RECIPE.key, mirror.root)
    manifest = read_manifest(brought.path)
    assert count == sum(manifest.files[name][0] for name in shards(manifest))
    assert copy_artifact(brought.path, tmp_path / "copy")[1] == manifest.bytes
