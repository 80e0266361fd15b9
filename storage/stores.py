"""The stores in parts that an artifact may hold, by file name, for whoever wants to check one without knowing more."""

from pathlib import Path
from typing import TYPE_CHECKING

from storage.damage import Damaged
from storage.parts import PART_STORES

if TYPE_CHECKING:
    from storage.part_store import PartStore


def is_part_store(path: Path) -> bool:
    """Whether a folder is a store whose stage makes damaged parts again."""
    return path.name in PART_STORES


def open_part_store(path: Path) -> "PartStore":
    """The open `PartStore`. Raises Damaged, or ValueError for another format."""
    if path.name == "bev.zarr":
        from storage.bev import BevReader

        return BevReader(path).store
    if path.name == "boxes.zarr":
        from storage.boxes import open_boxes

        return open_boxes(path)
    from storage.depth import open_depth

    return open_depth(path)


def mend(path: Path) -> list[Damaged]:
    """`PartStore.mend` of what is a store in parts and opens; one that does not, its stage begins again."""
    if not is_part_store(path):
        return []
    try:
        return open_part_store(path).mend()
    except (Damaged, ValueError, OSError):
        return []
