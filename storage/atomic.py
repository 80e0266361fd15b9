"""Whole files or none: a reader never sees half of one, whatever instant the writer is killed at."""

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends without an error, its bytes on the disk first.

    Until then it stands beside `path` under a name that begins with a dot. On an error (a full disk) `path` stays as it
    was. Its permissions are what the user's umask says, as of any new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}")
    try:
        with open(making, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(making, path)
    except OSError as error:
        if error.errno in FULL:  # which a write raises without a name, or with one that nobody has seen
            error.filename = str(path)
        raise
    finally:
        making.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """`data` as the whole content of `path`."""
    with atomic_file(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON; NaN and infinity raise ValueError, since JSON has neither."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk: without it a crash of the machine may forget a file that was renamed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
