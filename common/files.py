"""Files of the dataroot, read with one policy: what the user can mend is an OSError or a DataError; what the file
system does of itself (a network drive that is away for a while, a disk that fails) is tried again first, and is then
nobody's mistake.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from common.errors import DataError, FileSystemError

Result = TypeVar("Result")

# What is wrong with the file or its name; every other error is the file system's own.
MISTAKES = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.ENXIO,  # a socket
)
PAUSES = (0.5, 2.0, 8.0)  # s before the tries after the first
COMPLETE = "complete the dataroot"


def read_file(path: Path, remedy: str = COMPLETE) -> bytes:
    """A regular file's bytes. Raises DataError with the remedy where it cannot be read, FileSystemError as below."""
    try:
        return read_regular(path)
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; {remedy}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None


def read_regular(path: Path) -> bytes:
    """A regular file's bytes. Raises OSError and FileSystemError as `patiently` does."""

    def read() -> bytes:
        with open(open_regular(path), "rb", buffering=0) as file:
            return file.readall()

    return patiently(path, read)


def patiently(path: Path, look: Callable[[], Result]) -> Result:
    """`look()`, which looks at a file; again after a pause where the file system fails.

    Raises OSError for what is wrong with the file, FileSystemError where the file system goes on failing.
    """
    for pause in PAUSES:
        try:
            return look()
        except OSError as error:
            if error.errno in MISTAKES:
                raise
            time.sleep(pause)
    try:
        return look()
    except OSError as error:
        if error.errno in MISTAKES:
            raise
        raise FileSystemError(
            f"{path}: the file system failed {len(PAUSES) + 1} times within {sum(PAUSES):g} s "
            f"({error.strerror}); once it is well, the same command goes on from there"
        ) from error


@contextmanager
def of_sample(token: str) -> Iterator[None]:
    """What is said of a file inside names the sample, too: a step that reads many goes on without it by its token."""
    try:
        yield
    except DataError as error:
        raise DataError(f"sample {token}: {error}") from None


def open_regular(path: Path) -> int:
    """A descriptor to read a regular file with. Raises OSError for anything else, without waiting on a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return descriptor
