"""Notes of the parts that an object root has."""

import pytest

from storage.atomic import write_bytes
from storage.sent_parts import (
    NOTES,
    SentPart,
    SentShard,
    forget_notes,
    noted,
    noted_shards,
    packed,
    put_down,
    take_up,
    unpacked,
)

PART = SentPart(
    {"boxes.zarr": 2},
    {"boxes.zarr/box/c/3/0/0": SentShard(9, "0123456789abcdef", "etag")},
    {"boxes.zarr/count/c/3": b"\x00\xff", "boxes.zarr/done/c/3": b"\x01"},
)


def test_what_is_put_down_can_be_taken_up(tmp_path):
    put_down(tmp_path, "3", PART)
    assert noted(tmp_path) == {"3"}
    assert noted_shards(tmp_path) == PART.shards
    assert [(tmp_path / name).read_bytes() for name in PART.small] == list(PART.small.values())
    take_up(tmp_path, "3")
    assert noted(tmp_path) == set()
    assert not any((tmp_path / name).exists() for name in PART.small)
    take_up(tmp_path, "3")
    put_down(tmp_path, "3", PART)
    forget_notes(tmp_path)
    assert noted_shards(tmp_path) == {}
    assert (tmp_path / "boxes.zarr/done/c/3").exists()


def test_shards_here_of_another_writing_go(tmp_path):
    (name,) = PART.shards
    put_down(tmp_path, "3", PART)
    write_bytes(tmp_path / name, b"mine")
    put_down(tmp_path, "3", PART)  # the small files are those that go with it
    assert (tmp_path / name).exists()
    (tmp_path / "boxes.zarr/count/c/3").write_bytes(b"another's")
    put_down(tmp_path, "3", PART)
    assert not (tmp_path / name).exists()


def test_a_note_that_a_disk_damaged_is_none(tmp_path):
    put_down(tmp_path, "3", PART)
    note = tmp_path / NOTES / "3"
    note.write_bytes(note.read_bytes().replace(b"etag", b"gate"))
    assert noted_shards(tmp_path) == {}
    put_down(tmp_path, "3", PART)
    assert noted_shards(tmp_path) == PART.shards


@pytest.mark.parametrize("data", [b"", b"{}", b"00000000 {}", packed({"a": 1})[:-1]])
def test_other_bytes_than_were_packed_do_not_pass(data):
    assert unpacked(packed({"a": 1})) == {"a": 1}
    with pytest.raises(ValueError, match="is not what was written"):
        unpacked(data)
