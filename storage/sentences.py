"""What a disk does is nobody's bug: a sentence for a full one, a closed one, one without locks and a damaged file."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import DataError, UserError
from storage.atomic import FULL
from storage.damage import Damaged
from storage.lock import CLOSED, NoLocks

NO_PLACE = (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)


@contextmanager
def in_sentences(place: Path | None = None, progress: str = "", elsewhere: str = "another folder") -> Iterator[None]:
    """Raise UserError, or DataError for damage, in place of such an error; all others pass: they are bugs.

    place: what is being written, for errors that name nothing. progress: words about what a full disk leaves.
    elsewhere: what to choose in place of a folder where nothing can be written.
    """
    try:
        yield
    except Damaged as error:
        raise DataError(str(error)) from error
    except NoLocks as error:
        remedy = f"choose {elsewhere}, on another file system"
        raise UserError(f"{error}: without them two runs could write one artifact; {remedy}") from error
    except OSError as error:
        named = error.filename or place or "the disk"
        if error.errno in FULL:
            raise UserError(f"{named}: {error.strerror}; {progress}make room and run the same command again") from error
        if place is not None and Path(named).is_relative_to(place.parent) and error.errno in (*CLOSED, *NO_PLACE):
            raise UserError(f"{named}: cannot be written ({error.strerror}); choose {elsewhere}") from error
        if error.errno in CLOSED:
            remedy = f"see who may read and write there, or choose {elsewhere}"
            raise UserError(f"{named}: {error.strerror}; {remedy}") from error
        raise
