"""Occupancy labels of a sample, from a dataroot that holds Occ3D's folder `gts/`."""

import io
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import DataError
from common.files import read_file
from models.names import OCCUPANCY_CLASSES
from models.occupancy import SHAPE, occupancy_path
from storage.index import Index

FETCH = "get the file again from the Occ3D-nuScenes archive"


class Occupancy(NamedTuple):
    """Voxels of the key ego frame, see `models.occupancy`."""

    labels: np.ndarray  # (X, Y, Z) uint8, positions in names.OCCUPANCY_CLASSES
    seen: np.ndarray  # (X, Y, Z) bool, in view of a camera: what counts in training and evaluation

    def flipped(self, along_x: bool, along_y: bool) -> "Occupancy":
        """The mirrored scene's: x (or y) reversed."""
        step = np.s_[:: -1 if along_x else 1, :: -1 if along_y else 1]
        return Occupancy(*(array[step] for array in self))


def read_occupancy(index: Index, dataroot: Path, sample: int) -> Occupancy:
    """A sample's labels. Raises DataError where the file is missing, damaged or of another shape."""
    path = dataroot / occupancy_path(str(index.scene_name[index.scene[sample]]), str(index.token[sample]))
    remedy = "unpack Occ3D-nuScenes' gts/ into the dataroot (a simulated world: simulate.occupancy=true)"
    data = read_file(path, remedy)
    try:
        with np.load(io.BytesIO(data)) as file:
            labels, seen = (np.asarray(file[name]) for name in ("semantics", "mask_camera"))
    except KeyError as error:
        raise DataError(f"{path}: holds no array {error.args[0].split()[0]}; {FETCH}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); {FETCH}") from None
    for name, array in (("semantics", labels), ("mask_camera", seen)):
        if array.shape != SHAPE:
            raise DataError(f"{path}: {name} has shape {array.shape}, not {SHAPE}; {FETCH}")
    if labels.dtype.kind not in "ui" or labels.min() < 0 or labels.max() >= len(OCCUPANCY_CLASSES):
        raise DataError(f"{path}: semantics holds other values than 0 to {len(OCCUPANCY_CLASSES) - 1}; {FETCH}")
    return Occupancy(labels.astype(np.uint8), seen != 0)
