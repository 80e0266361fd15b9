"""Shards of an object root's stores, fetched when they are first read, in a folder that stays within a bound.

    ROOT/.shards/NAME            a shard; its time is that of its last read
    ROOT/.shards/.NAME.HEX       one that is on its way: of its full size, and locked by who fetches it

What was not read for longest goes first. Several threads and processes read at the same time: a shard is fetched by one
of them, takes its place whole, and whoever finds that one just gone fetches it again.
"""

import contextlib
import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from storage.damage import artifact_folder
from storage.lock import locked
from storage.manifest import records_elsewhere
from storage.mirror import mirror_of
from storage.remote import Remote, number_set

BOUND = "GEOMIM_CACHE_GB"  # in the environment: what the shards of one object root may take here
DEFAULT_BOUND = 50.0  # GB, 10^9 bytes
SHARDS = ".shards"
SECONDS_BETWEEN_LOOKS = 0.1


@dataclass(frozen=True)
class RemoteShards:
    """The shards of one artifact that are not in its folder."""

    folder: Path  # the artifact's
    remote: Remote
    records: dict[str, tuple[int, str]]  # name -> bytes and `FileSum`

    def open(self, file: Path) -> BinaryIO:
        """The shard that would be this file of the artifact's folder, to be read. Raises FileNotFoundError for none."""
        name = file.absolute().relative_to(self.folder).as_posix()
        if name not in self.records:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        place, cached = self._places(name)
        size, _ = self.records[name]
        while (found := _open(cached, size)) is None:
            with locked(cached, "a reader"):
                if not cached.exists():
                    self._fetch(place, cached, self.records[name])
        return found

    def has(self, file: Path) -> bool:
        """Whether one would be this file."""
        return file.absolute().relative_to(self.folder).as_posix() in self.records

    def size(self, file: Path) -> int:
        """Bytes of that."""
        return self.records[file.absolute().relative_to(self.folder).as_posix()][0]

    def drop(self, file: Path) -> None:
        """Have the shard that would be this file fetched again by its next reader."""
        _, cached = self._places(file.absolute().relative_to(self.folder).as_posix())
        cached.unlink(missing_ok=True)

    def _places(self, name: str) -> tuple[str, Path]:
        """A shard's name in the object root, and where it is cached."""
        place = f"{self.folder.parent.name}/{self.folder.name}/{name}"
        return place, self.folder.parents[1] / SHARDS / place.replace("/", "-")

    def _fetch(self, place: str, cached: Path, record: tuple[int, str]) -> None:
        making = cached.with_name(f".{cached.name}.{uuid.uuid4().hex}")
        with _with_room(making, record[0]) as file:
            try:
                self.remote.fetch(place, file, record)
                file.flush()
                os.fsync(file.fileno())
                with _alone(cached.parent):
                    os.replace(making, cached)
            finally:
                making.unlink(missing_ok=True)


def remote_shards(array: Path) -> RemoteShards | None:
    """Where the shards of an array in a folder come from, None where they come from nowhere but that folder."""
    folder = artifact_folder(array.absolute())
    mirror = mirror_of(folder.parents[1])
    records = records_elsewhere(folder) if mirror else {}
    return RemoteShards(folder, mirror.remote, records) if mirror and records else None


def bound() -> int:
    """In bytes. Raises UserError for what is no number."""
    return int(number_set(BOUND, DEFAULT_BOUND) * 1e9)


def _open(cached: Path, size: int) -> BinaryIO | None:
    """A shard that is here, with the time of this read; None where it is not here or cut."""
    try:
        file = open(cached, "rb", buffering=0)  # noqa: SIM115 (the caller's)
    except FileNotFoundError:
        return None
    if os.fstat(file.fileno()).st_size != size:  # a disk lost some of it
        file.close()
        cached.unlink(missing_ok=True)
        return None
    os.utime(file.fileno())
    return file


def _with_room(making: Path, size: int) -> BinaryIO:
    """The locked file of a shard that is fetched, of its full size: as soon as the bound allows it, or nothing else is
    on its way."""
    limit = bound()
    while True:
        with _alone(making.parent):
            here, coming = _sizes(making.parent)
            if not coming or coming + size <= limit:
                total = sum(bytes_here for _, bytes_here in here.values()) + coming + size
                for path, (_, bytes_here) in sorted(here.items(), key=lambda item: item[1]):
                    if total <= limit:
                        break
                    path.unlink(missing_ok=True)
                    total -= bytes_here
                file = open(making, "xb")  # noqa: SIM115 (the caller's)
                fcntl.flock(file, fcntl.LOCK_EX)
                file.truncate(size)
                return file
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _sizes(folder: Path) -> tuple[dict[Path, tuple[float, int]], int]:
    """(path -> time of the last read and bytes) of the shards that are here, and the bytes of those on their way.

    What a kill left on its way goes.
    """
    here: dict[Path, tuple[float, int]] = {}
    coming = 0
    for path in folder.iterdir():
        if path.name.endswith(".lock"):
            continue
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not path.name.startswith("."):
                here[path] = status.st_mtime, status.st_size
            elif _is_locked(file):
                coming += status.st_size
            else:
                path.unlink(missing_ok=True)
    return here, coming


def _is_locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else adds to the folder or takes from it inside."""
    with open(folder / ".room.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
