"""Done flags of a store that is written in parts: one uint8 per part, each in a chunk (so a file) of its own.

Several flags in one chunk would lose flags to parallel writers; a flag is set only after its part's data is written.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import zarr

FLAGS = "done"


class Parts:
    """The parts of a Zarr group and which of them are done."""

    def __init__(self, group: "zarr.Group", count: int | None = None):
        """Open the flags of `group`, or create them for `count` parts. Raises ValueError if the counts differ."""
        if FLAGS not in group:
            if count is None:
                raise ValueError(f"{group.store_path}: has no '{FLAGS}' array; this is no store written in parts")
            group.create_array(
                FLAGS, shape=(count,), chunks=(1,), dtype="uint8", fill_value=0, dimension_names=("part",)
            )
        self.flags = group[FLAGS]
        self.count = self.flags.shape[0]
        if count is not None and count != self.count:
            raise ValueError(f"{group.store_path}: has {self.count} parts, not {count}")

    def pending(self) -> list[int]:
        """Parts that are not done, ascending."""
        return np.flatnonzero(self.flags[:] == 0).tolist()

    def is_done(self, part: int) -> bool:
        return bool(self.flags[part])

    def mark(self, part: int) -> None:
        """Flag `part` as done. Its data must be written before."""
        self.flags[part] = 1


def count_done(store: Path) -> tuple[int, int] | None:
    """(done, all) parts of the store in a folder, or None if it has no flags. Reads file names only: no zarr import."""
    try:
        total = json.loads((store / FLAGS / "zarr.json").read_text())["shape"][0]
    except (OSError, ValueError, KeyError):
        return None
    chunks = store / FLAGS / "c"
    return (sum(1 for p in chunks.iterdir() if p.name.isdigit()) if chunks.is_dir() else 0), total
