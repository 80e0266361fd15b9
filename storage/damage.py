"""What a reader raises for files that are gone, or are not what was written."""

from pathlib import Path


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
