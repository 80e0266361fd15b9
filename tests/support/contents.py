"""What counts in an artifact."""

from pathlib import Path

import numpy as np
import zarr
from safetensors.numpy import load_file


def contents_of(folder: Path) -> dict[str, np.ndarray]:
    """All that counts in an artifact: the arrays of its stores and weights, or what an evaluation found.

    (The scores that `fit` adds to its weights differ in last digits between the process that trained them and one that
    loaded them: other layouts in memory, other kernels.)
    """
    found = {}
    for store in sorted(folder.glob("*.zarr")):
        for name, array in zarr.open_group(str(store), mode="r").arrays():
            found[f"{store.name}/{name}"] = array[...]
    for file in sorted(folder.rglob("*.safetensors")):
        found |= {f"{file.relative_to(folder)}/{name}": value for name, value in load_file(file).items()}
    for file in sorted(folder.glob("results_*.json")) if not found else ():
        found[file.name] = np.frombuffer(file.read_bytes(), np.uint8)
    return found
