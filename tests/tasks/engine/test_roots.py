"""A root that cannot be one is said so before anything is begun."""

import os

import pytest

from common.errors import UserError
from tasks.engine.roots import usable_root, written


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ftp://bucket/artifacts", "is no object root; write s3://BUCKET/PREFIX"),
        ("a" * 300, "has 255 bytes at most"),
        ("two\nlines", "holds a line break"),
        ("file", "is a file; name a folder"),
        ("file/below", "cannot be made"),
    ],
)
def test_what_is_no_root(tmp_path, monkeypatch, name, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=sentence) as error:
        usable_root(tmp_path / name if "://" not in name else type(tmp_path)(name))
    assert "\n" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(UserError, match=r"cannot be (written|made)"):
        usable_root(tmp_path / "root")


def test_a_root_is_made_where_it_is_to_be_written_alone(tmp_path):
    assert usable_root(tmp_path / "a", to_write=False) == tmp_path / "a"
    assert not (tmp_path / "a").exists()
    assert usable_root(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_an_object_root_is_its_mirror_here(tmp_path, monkeypatch):
    """However a path has cut the URL short, and without a word to the store."""
    monkeypatch.setenv("GEOMIM_CACHE", str(tmp_path / "cache"))
    root = usable_root(type(tmp_path)("s3://bucket/artifacts"))
    assert root.parent == tmp_path / "cache"
    assert usable_root(type(tmp_path)("s3:/bucket/artifacts/"), to_write=False) == root
    assert written(type(tmp_path)("s3://bucket/artifacts")) == "s3://bucket/artifacts"
    assert written(tmp_path) == str(tmp_path)
