"""Arrays of a Zarr group in a folder, and where they lie: what zarr-python leaves open for stores of other kinds."""

from pathlib import Path

import zarr
from zarr.storage import LocalStore


def array_in(group: zarr.Group, name: str) -> zarr.Array:
    """The array of that name. Raises KeyError where there is none, TypeError where it is a group."""
    node = group[name]
    if not isinstance(node, zarr.Array):
        raise TypeError(f"{name}: is a group, not an array")
    return node


def folder_of(array: zarr.Array) -> Path:
    """The folder with an array's `zarr.json`."""
    store = array.store
    assert isinstance(store, LocalStore)  # the one kind that is opened here
    return Path(store.root) / array.path
