"""Which parts of unfinished work an object root has: a note of each in the artifact's folder, as the root has it too.

    ROOT/STAGE/KEY16/.parts/PART

What another machine has written is put down here without its shards: flags and the other small files stand in the note.
A note is written before these files and goes after them, so whatever instant a process is killed at, a part that is
flagged has its shards here or a note of where they are.
"""

import base64
import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.atomic import write_bytes
from storage.checksum import crc32c

NOTES = ".parts"


@dataclass(frozen=True)
class SentShard:
    """A shard that an object root has."""

    size: int  # bytes
    sum: str  # see `FileSum`
    etag: str  # the bare one

    @property
    def record(self) -> tuple[int, str]:
        """What a manifest says of it."""
        return self.size, self.sum


@dataclass(frozen=True)
class SentPart:
    """A part that an object root has; files by their paths in the artifact's folder."""

    sizes: dict[str, int]  # store -> samples a part
    shards: dict[str, SentShard]
    small: dict[str, bytes]  # all its other files, in the order in which they are to be written: flags last

    def as_json(self) -> dict[str, Any]:
        return {
            "sizes": self.sizes,
            "shards": {name: [shard.size, shard.sum, shard.etag] for name, shard in self.shards.items()},
            "small": {name: base64.b64encode(data).decode() for name, data in self.small.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SentPart":
        return cls(
            value["sizes"],
            {name: SentShard(*shard) for name, shard in value["shards"].items()},
            {name: base64.b64decode(data) for name, data in value["small"].items()},
        )


def packed(value: Mapping[str, Any]) -> bytes:
    """JSON with its checksum before it."""
    text = json.dumps(value).encode()
    return f"{crc32c(text):08x} ".encode() + text


def unpacked(data: bytes) -> dict[str, Any]:
    """What was packed. Raises ValueError for anything else."""
    total, _, text = data.partition(b" ")
    if total != f"{crc32c(text):08x}".encode():
        raise ValueError("is not what was written")
    return json.loads(text)


def put_down(folder: Path, name: str, part: SentPart) -> None:
    """Note a part in an artifact's folder, and have its small files there. Shards there of another writing go.

    (By a process that was taken for dead, whose part another machine then wrote: `check`, one of the small files, says
    which shards it goes with.)
    """
    _write(folder / NOTES / name, packed(part.as_json()))
    if not all(_has(folder / file, data) for file, data in part.small.items()):
        for file in part.shards:
            (folder / file).unlink(missing_ok=True)
    for file, data in part.small.items():
        _write(folder / file, data)


def take_up(folder: Path, name: str) -> None:
    """Forget a part that the object root does not have any more: it is to be written again."""
    if (part := _noted(folder / NOTES / name)) is not None:
        for file in reversed(part.small):
            (folder / file).unlink(missing_ok=True)
    (folder / NOTES / name).unlink(missing_ok=True)


def noted(folder: Path) -> set[str]:
    """Names of the parts that are noted in an artifact's folder."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return {path.name for path in (folder / NOTES).iterdir() if path.name.isdigit()}
    return set()


def noted_shards(folder: Path) -> dict[str, SentShard]:
    """The shards of these parts."""
    shards: dict[str, SentShard] = {}
    for name in noted(folder):
        if (part := _noted(folder / NOTES / name)) is not None:
            shards |= part.shards
    return shards


def forget_notes(folder: Path) -> None:
    """Once the artifact was sent, nobody needs them."""
    shutil.rmtree(folder / NOTES, ignore_errors=True)


def _noted(note: Path) -> SentPart | None:
    """None where it is gone, or a disk has damaged it: the object root says it again."""
    try:
        return SentPart.from_json(unpacked(note.read_bytes()))
    except (FileNotFoundError, ValueError):
        return None


def _write(path: Path, data: bytes) -> None:
    if not _has(path, data):
        write_bytes(path, data)


def _has(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except FileNotFoundError:
        return False
