"""Digests of files and folders that stand outside the store, remembered so that asking again costs a stat."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage.atomic import write_json
from storage.key import digest

# A folder of more files than this is taken to be as it was while its modification time is: that sees files that come,
# go or are replaced, but not one that is written over in its place. Of smaller folders every file is looked at.
MANY_FILES = 20_000


def file_digest(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Digests:
    """A memory of digests in one JSON file; a lost or damaged memory only costs time."""

    def __init__(self, memory: Path):
        self.memory = memory
        self._digests = _read(memory)
        self._changed = False

    def of(self, path: Path) -> str:
        """SHA-256 of the file at `path`, read only if its size or modification time changed since the last time."""
        path = path.resolve()
        stat = path.stat()
        return self._recall(str(path), [stat.st_size, stat.st_mtime_ns], lambda: file_digest(path))

    def of_folder(self, folder: Path, skip: Callable[[str], bool] = lambda name: False) -> str:
        """SHA-256 of the names and sizes of all files below a folder; "" where there is none.

        skip: tells of the names of subfolders which to leave out. Raises OSError where a folder cannot be read.
        """
        folder = folder.resolve()
        if not folder.is_dir():
            return ""
        listing: list[list[str]] = []
        todo, visited = [folder], set()
        while todo:
            place = todo.pop()
            stat = place.stat()
            if (stat.st_dev, stat.st_ino) in visited:  # a link that leads back
                continue
            visited.add((stat.st_dev, stat.st_ino))
            names, total = self._listing(place)
            todo += [place / name for name in names if not skip(name)]
            listing.append([str(place.relative_to(folder)), total])
        return digest(sorted(listing))

    def of_all(self, folder: Path, pattern: str) -> str:
        """SHA-256 of the names and bytes of the files below a folder that match a pattern; "" where there are none.

        They are read only if a name, size or modification time changed since the last time.
        """
        folder = folder.resolve()
        files = {str(path.relative_to(folder)): path for path in sorted(folder.glob(pattern)) if path.is_file()}
        if not files:
            return ""
        stats = {name: path.stat() for name, path in files.items()}
        mark = digest([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()])

        def compute() -> str:
            return digest([[name, file_digest(path)] for name, path in files.items()])

        return self._recall(f"{folder}/{pattern}", [len(files), mark], compute)

    def save(self) -> None:
        """Keep what was learnt, where there is a root to keep it in; called by whoever asked, once."""
        if self._changed and self.memory.parent.is_dir():
            with contextlib.suppress(OSError):  # a read-only or full disk must not keep anyone from asking for a key
                write_json(self.memory, {"known": self._digests, "digest": digest(self._digests)})

    def _listing(self, folder: Path) -> tuple[list[str], str]:
        """A folder's subfolders, and the digest of the names and sizes of its files."""
        mark = folder.stat().st_mtime_ns
        remembered = self._digests.get(f"{folder}/")
        if remembered and remembered[0] == mark:
            return remembered[1], remembered[2]
        files, folders = [], []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.name)
                else:
                    files.append([entry.name, _size(entry)])
        total = digest(sorted(files))
        if len(files) > MANY_FILES:
            self._digests[f"{folder}/"] = [mark, folders, total]
            self._changed = True
        return folders, total

    def _recall(self, name: str, mark: list[Any], compute: Callable[[], str]) -> str:
        remembered = self._digests.get(name)
        if remembered and remembered[:2] == mark:
            return remembered[2]
        self._digests[name] = [*mark, compute()]
        self._changed = True
        return self._digests[name][2]


def _size(entry: os.DirEntry) -> int | None:
    """None of a link to nothing: it is for whoever wants to read it to complain."""
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return None


def _read(memory: Path) -> dict[str, Any]:
    """What the file holds, nothing where it is of another shape or not what was written."""
    try:
        content = json.loads(memory.read_bytes())
        digests = content["known"]
        return digests if digest(digests) == content["digest"] else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
