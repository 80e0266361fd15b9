"""Whether artifacts can live in a folder: asked before anything is begun there."""

import os
from pathlib import Path

from common.errors import UserError
from storage.mirror import mirror_at
from storage.remote import url_in

LONGEST = 255  # bytes in a name; every file system that matters has this limit


def written(root: Path) -> str:
    """A root as the user wrote it: a URL has lost a slash on its way through a path."""
    return url_in(str(root)) or str(root)


def usable_root(root: Path, to_write: bool = True) -> Path:
    """`root`, absolute; of an object root's URL its mirror (storage/mirror.py).

    Raises UserError where it is no folder of this machine's that can be read (and written), and no such URL.
    """
    text = str(root)
    if (url := url_in(text)) is not None:
        root = mirror_at(url).root
    if any(len(os.fsencode(part)) > LONGEST for part in root.parts):
        raise UserError(f"--root {text[:60]}...: a folder's name has {LONGEST} bytes at most; choose a shorter one")
    if "\0" in text or "\n" in text:
        raise UserError(f"--root {text!r}: holds a line break or a NUL; choose another name")
    root = root.absolute()
    try:
        if root.exists() and not root.is_dir():
            raise UserError(f"--root {root}: is a file; name a folder for the artifacts")
        if not to_write:
            return root
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--root {root}: cannot be made ({error.strerror}); choose another one") from None
    if not os.access(root, os.W_OK | os.X_OK):
        raise UserError(f"--root {root}: cannot be written; choose another one")
    return root
