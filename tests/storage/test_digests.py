import hashlib
import os

import pytest

from storage import digests as digests_module
from storage.digests import Digests, file_digest


def test_a_digest_is_the_files_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"geometry")
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"geometry").hexdigest()


def test_a_known_file_is_not_read_again_and_a_changed_one_is(tmp_path):
    file, memory = tmp_path / "a", tmp_path / "memory.json"
    file.write_bytes(b"one")
    digests = Digests(memory)
    first = digests.of(file)
    digests.save()
    mark = file.stat()
    # Same size, same time: only a memory that does not read the file can miss this.
    file.write_bytes(b"two")
    os.utime(file, ns=(mark.st_atime_ns, mark.st_mtime_ns))
    assert Digests(memory).of(file) == first
    os.utime(file, ns=(mark.st_atime_ns, mark.st_mtime_ns + 1))
    assert Digests(memory).of(file) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("text", ["{half", "[]", "null", '{"known": {}}', '{"known": 3, "digest": "x"}', "[" * 100_000])
def test_a_damaged_memory_costs_only_time(tmp_path, text):
    (tmp_path / "memory.json").write_text(text)
    (tmp_path / "a").write_bytes(b"x")
    assert Digests(tmp_path / "memory.json").of(tmp_path / "a") == hashlib.sha256(b"x").hexdigest()


def test_a_flipped_bit_in_the_memory_is_no_digest(tmp_path):
    file, memory = tmp_path / "a", tmp_path / "memory.json"
    file.write_bytes(b"one")
    digests = Digests(memory)
    digests.of(file)
    digests.save()
    text = memory.read_bytes()
    for place in range(len(text)):
        memory.write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
        assert Digests(memory).of(file) == hashlib.sha256(b"one").hexdigest()


def test_a_folders_digest_is_of_names_and_sizes(tmp_path):
    def now() -> str:
        return Digests(tmp_path / "memory.json").of_folder(tmp_path / "data")

    assert now() == ""
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data" / "inner" / "a").write_bytes(b"one")
    found = [now()]
    (tmp_path / "data" / "inner" / "a").write_bytes(b"longer")
    found.append(now())
    (tmp_path / "data" / "b").write_bytes(b"")
    found.append(now())
    (tmp_path / "data" / "b").rename(tmp_path / "data" / "inner" / "b")
    found.append(now())
    assert len(set(found)) == 4
    (tmp_path / "data").rename(tmp_path / "moved")
    assert Digests(tmp_path / "memory.json").of_folder(tmp_path / "moved") == found[-1]


def test_subfolders_can_be_left_out_and_links_lead_nowhere(tmp_path):
    for name in ("CAM_FRONT", "LIDAR_TOP"):
        (tmp_path / "sweeps" / name).mkdir(parents=True)
        (tmp_path / "sweeps" / name / "a").write_bytes(b"x")
    digests = Digests(tmp_path / "memory.json")
    before = digests.of_folder(tmp_path / "sweeps", skip=lambda name: name.startswith("CAM_"))
    (tmp_path / "sweeps" / "CAM_FRONT" / "b").write_bytes(b"x")
    (tmp_path / "sweeps" / "LIDAR_TOP" / "up").symlink_to(tmp_path / "sweeps")
    assert digests.of_folder(tmp_path / "sweeps", skip=lambda name: name.startswith("CAM_")) == before


def test_a_link_to_nothing_is_a_file_like_others(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_bytes(b"x")
    digests, found = Digests(tmp_path / "memory.json"), []
    found.append(digests.of_folder(folder))
    (folder / "b").symlink_to(tmp_path / "nothing")
    found.append(digests.of_folder(folder))
    (folder / "a").write_bytes(b"xy")
    found.append(digests.of_folder(folder))
    assert len(set(found)) == 3


def test_all_files_of_a_pattern_by_their_bytes(tmp_path, monkeypatch):
    memory, folder = tmp_path / "memory.json", tmp_path / "data"
    assert Digests(memory).of_all(folder, "*/x.bin") == ""
    for name in ("a/x.bin", "b/x.bin", "b/y.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"some")
    digests = Digests(memory)
    before = digests.of_all(folder, "*/x.bin")
    digests.save()
    with monkeypatch.context() as patch:
        patch.setattr(digests_module, "file_digest", None)  # to read would fail
        assert Digests(memory).of_all(folder, "*/x.bin") == before
    (folder / "b" / "y.bin").write_bytes(b"else")
    assert Digests(memory).of_all(folder, "*/x.bin") == before
    (folder / "b" / "x.bin").write_bytes(b"else")  # of the same size
    assert Digests(memory).of_all(folder, "*/x.bin") != before


def test_a_big_folder_is_remembered_by_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr(digests_module, "MANY_FILES", 1)
    memory, folder = tmp_path / "memory.json", tmp_path / "data"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_bytes(b"x")
    digests = Digests(memory)
    before = digests.of_folder(folder)
    digests.save()
    with monkeypatch.context() as patch:
        patch.setattr(digests_module.os, "scandir", None)  # to look would fail
        assert Digests(memory).of_folder(folder) == before
    (folder / "d").write_bytes(b"x")
    assert Digests(memory).of_folder(folder) != before
