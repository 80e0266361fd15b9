"""What a reader raises for files that are gone, or are not what was written; and where these are moved to."""

import os
import time
from pathlib import Path

ASIDE = ".damaged-"  # in the name of what was moved aside


class Damaged(Exception):
    """One sentence: the file, what is wrong with it, and the remedy."""

    def __init__(self, path: Path, what: str):
        super().__init__(path, what)
        self.path, self.what = Path(path), what

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; `geomim repair {artifact_folder(self.path)}` mends it"


def artifact_folder(path: Path) -> Path:
    """The artifact that a file or store belongs to: the folder that holds the Zarr store in the path, or the file."""
    for folder in (path, *path.parents):
        if folder.suffix == ".zarr":
            return folder.parent
    return path.parent


def set_aside(path: Path) -> Path:
    """Move a file or folder to a name beside it that says what it is, and return that."""
    target = path.with_name(f"{path.name}{ASIDE}{time.strftime('%Y%m%d-%H%M%S')}")
    while target.exists():
        target = target.with_name(f"{target.name}+")
    os.replace(path, target)
    return target
