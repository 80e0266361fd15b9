"""Who works on an artifact, and who reads it: advisory locks (flock) on a file beside it.

A lock goes with the process that holds it, however that ends. The file says who holds it, for those who wait; the last
to let go removes it.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from storage.leases import process_lives
from storage.waiting import Waiting

SECONDS_BETWEEN_TRIES = 0.2
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)  # of a folder in which this process may not write
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class NoLocks(Exception):
    """The file system keeps no locks."""


class Busy(Exception):
    """Somebody else holds the lock."""


def lock_file(folder: Path) -> Path:
    """Where the lock of a folder is, there or not."""
    return folder.with_name(f".{folder.name}.lock")


@contextmanager
def locked(
    folder: Path,
    what: str,
    shared: bool = False,
    waiting: Callable[[str], None] = lambda line: None,
    patient: bool = True,
) -> Iterator[None]:
    """Hold a folder's lock inside; wait for it first, as long as it takes, or (not patient) raise Busy.

    what: for those who wait meanwhile, such as "geomim pretrain". shared: several may read at the same time, while
    nobody holds it alone. waiting: called with a sentence about the holder when waiting begins, and now and then.
    Raises NoLocks, or OSError where the file cannot be made: but a reader in whose folder it may not write (a mount
    for reading alone) goes on without. Nothing else could be done there, and readers check what they read.
    """
    path = lock_file(folder)
    if shared and not _may_write(path.parent):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Until the first line it may be somebody who looks whether it is free.
    wait = Waiting(waiting, SECONDS_BETWEEN_TRIES, after=2 * SECONDS_BETWEEN_TRIES)
    while (file := _taken(path, shared)) is None:
        if not patient:
            raise Busy(str(path))
        wait.a_while(lambda: holder(folder))
    with file:
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), "what": what}, file)
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # others read as well: the last of them removes the file
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)


def holder(folder: Path) -> str | None:
    """Who holds a folder's lock now, in words; None where nobody does."""
    try:
        with open(lock_file(folder), "r+") as file:
            if _try(file, shared=False):
                return None
            file.seek(0)
            owner = json.loads(file.read())
            if owner["host"] == socket.gethostname() and not process_lives(owner["pid"]):
                return "another process"  # one of several readers, of whom the last to come has gone
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner["since"]))
            return f"`{owner['what']}` (process {owner['pid']} on {owner['host']}, since {since})"
    except OSError:  # no such file: nobody; or none of ours to open
        return None
    except (ValueError, KeyError, TypeError):  # being written
        return "another process"


def is_locked(folder: Path) -> bool:
    """Whether somebody holds a folder's lock alone: works on it."""
    try:
        with open(lock_file(folder)) as file:
            return not _try(file, shared=True)
    except OSError:
        return False


def _may_write(folder: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return not folder.exists() or os.access(folder, os.W_OK | os.X_OK, effective_ids=effective)


def _taken(path: Path, shared: bool) -> IO | None:
    """The open and locked file, or None where somebody else has it."""
    file = open(path, "a+")  # noqa: SIM115 (held while the lock is)
    if not _try(file, shared):
        file.close()
        return None
    # Whoever let go last has removed the file: then this one is no longer at its place, and locks nothing.
    try:
        same = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        same = False
    if not same:
        file.close()
        return _taken(path, shared)
    return file


def _try(file: IO, shared: bool) -> bool:
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise NoLocks(f"{file.name}: the file system keeps no locks ({error.strerror})") from None
        raise
    return True
