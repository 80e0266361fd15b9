import hashlib
import os

from storage.digests import Digests, file_digest


def test_a_digest_is_the_files_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"geometry")
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"geometry").hexdigest()


def test_a_known_file_is_not_read_again_and_a_changed_one_is(tmp_path):
    file, memory = tmp_path / "a", tmp_path / "memory.json"
    file.write_bytes(b"one")
    first = Digests(memory).of(file)
    mark = file.stat()
    # Same size, same time: only a memory that does not read the file can miss this.
    file.write_bytes(b"two")
    os.utime(file, ns=(mark.st_atime_ns, mark.st_mtime_ns))
    assert Digests(memory).of(file) == first
    os.utime(file, ns=(mark.st_atime_ns, mark.st_mtime_ns + 1))
    assert Digests(memory).of(file) == hashlib.sha256(b"two").hexdigest()


def test_a_damaged_memory_costs_only_time(tmp_path):
    (tmp_path / "memory.json").write_text("{half")
    (tmp_path / "a").write_bytes(b"x")
    assert Digests(tmp_path / "memory.json").of(tmp_path / "a") == hashlib.sha256(b"x").hexdigest()
