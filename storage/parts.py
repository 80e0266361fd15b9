"""Done flags of a store that is written in parts: one uint8 per part, each in a chunk (so a file) of its own.

Several flags in one chunk would lose flags to parallel writers; a flag is set when its part's data is on the disk.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from storage.atomic import sync_folder, write_bytes
from storage.checksum import with_crc

if TYPE_CHECKING:
    import zarr

PART_STORES = ("bev.zarr", "boxes.zarr", "depth.zarr")  # by file name, wherever they are
FLAGS = "done"
_SET = with_crc(b"\x01")  # a flag's file


class Parts:
    """The parts of a Zarr group and which of them are done."""

    def __init__(self, group: "zarr.Group", count: int | None = None):
        """Open the flags of `group`, or create them for `count` parts. Raises ValueError if the counts differ."""
        if FLAGS not in group:
            if count is None:
                raise ValueError(f"{group.store_path}: has no '{FLAGS}' array; this is no store written in parts")
            from zarr.codecs import Crc32cCodec

            group.create_array(
                FLAGS,
                shape=(count,),
                chunks=(1,),
                dtype="uint8",
                fill_value=0,
                filters=None,
                compressors=(Crc32cCodec(),),
                dimension_names=("part",),
            )
        from storage.nodes import array_in, folder_of

        flags = array_in(group, FLAGS)
        self._folder = folder_of(flags) / "c"
        self.count = flags.shape[0]
        if count is not None and count != self.count:
            raise ValueError(f"{group.store_path}: has {self.count} parts, not {count}")

    def file(self, part: int) -> Path:
        """The file that holds a part's flag."""
        return self._folder / str(part)

    def flagged(self) -> set[int]:
        """Parts that have a flag's file: done, unless it is damaged."""
        return {int(p.name) for p in self._folder.iterdir() if p.name.isdigit()} if self._folder.is_dir() else set()

    def pending(self) -> list[int]:
        """Parts that are not done, ascending."""
        flagged = self.flagged()
        return [part for part in range(self.count) if part not in flagged or not self.is_done(part)]

    def is_done(self, part: int) -> bool:
        """Whether the part is flagged; a flag that cannot be read is none."""
        try:
            return self.file(part).read_bytes() == _SET
        except OSError:
            return False

    def mark(self, part: int) -> None:
        """Flag `part` as done. Its data must be on the disk before."""
        write_bytes(self.file(part), _SET)

    def unmark(self, part: int) -> None:
        """Take the flag away: the part is to be written again."""
        self.file(part).unlink(missing_ok=True)
        if self._folder.is_dir():
            sync_folder(self._folder)


def count_done(store: Path) -> tuple[int, int] | None:
    """(done, all) parts of the store in a folder, or None if it has no flags. Reads file names only: no zarr import."""
    try:
        total = json.loads((store / FLAGS / "zarr.json").read_text())["shape"][0]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    chunks = store / FLAGS / "c"
    return (sum(1 for p in chunks.iterdir() if p.name.isdigit()) if chunks.is_dir() else 0), total
