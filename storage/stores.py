"""The stores in parts that an artifact may hold, by file name, for whoever wants to check one without knowing more."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.part_store import PartStore

PART_STORES = ("bev.zarr", "boxes.zarr", "depth.zarr")


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
