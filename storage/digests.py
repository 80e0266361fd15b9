"""SHA-256 of big files, remembered by (path, size, mtime_ns) so that asking again costs a stat."""

import contextlib
import hashlib
import json
from pathlib import Path

from storage.atomic import write_json


def file_digest(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Digests:
    """A memory of file digests in one JSON file; a lost or damaged memory only costs time."""

    def __init__(self, memory: Path):
        self.memory = memory
        try:
            self._known = json.loads(memory.read_text())
        except (OSError, ValueError):
            self._known = {}

    def of(self, path: Path) -> str:
        """SHA-256 of the file at `path`, read only if its size or modification time changed since the last time."""
        path = path.resolve()
        stat = path.stat()
        mark = [stat.st_size, stat.st_mtime_ns]
        known = self._known.get(str(path))
        if known and known[:2] == mark:
            return known[2]
        sha256 = file_digest(path)
        self._known[str(path)] = [*mark, sha256]
        with contextlib.suppress(OSError):  # a read-only or full disk must not keep anyone from asking for a key
            write_json(self.memory, self._known)
        return sha256
