"""Which scene is for training, validation or test.

`DATAROOT/VERSION/splits.json` ({name: [scene names]}, the devkit's custom splits) decides alone where it is there; its
names are train, val and test, or mini_train and mini_val. Otherwise the devkit's own lists do: mini_train and mini_val
for a version that ends in mini, train, val and test for any other. A scene of no list belongs to no split ("").
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from common.files import read_regular
from dataroot.devkit_splits import devkit_splits
from dataroot.faults import Faults
from dataroot.names import SPLITS_FILE
from dataroot.tables import parse_json

# The devkit's name of a split -> ours.
OURS = {"train": "train", "val": "val", "test": "test", "mini_train": "train", "mini_val": "val"}
REMEDY = 'write {"train": [scene names], "val": [...]} as the devkit reads it, or remove the file'


def split_scenes(
    dataroot: Path, version: str, scene_names: np.ndarray, faults: Faults
) -> tuple[np.ndarray, dict[str, str]]:
    """The split of each scene (scenes,), and split -> the devkit's name for it, for every split that has scenes."""
    file = f"{version}/{SPLITS_FILE}"
    if (dataroot / file).exists():
        lists = _custom(dataroot, file, faults)
    else:
        names = ("mini_train", "mini_val") if version.endswith("mini") else ("train", "val", "test")
        official = devkit_splits()
        lists = {name: official[name] for name in names}
    split_of: dict[str, str] = {}
    for name, scenes in lists.items():
        for scene in scenes:
            if split_of.setdefault(scene, name) != name:
                faults.add(file, name, f"{scene} is in {split_of[scene]} too", "keep each scene in one split")
    devkit_names = [split_of.get(scene, "") for scene in scene_names]
    out = np.array([OURS.get(name, "") for name in devkit_names], object)
    return out, {OURS[name]: name for name in lists if name in devkit_names}


def _custom(dataroot: Path, file: str, faults: Faults) -> Mapping[str, list[str]]:
    try:
        lists = parse_json(read_regular(dataroot / file))
    except OSError as error:
        faults.add(file, "", f"cannot be read ({error.strerror})", REMEDY)
        return {}
    except ValueError as error:
        faults.add(file, "", f"cannot be read as JSON ({error})", REMEDY)
        return {}
    if not isinstance(lists, dict):
        faults.add(file, "", f"holds a {type(lists).__name__}, not splits by name", REMEDY)
        return {}
    splits = {name: scenes for name, scenes in lists.items() if name in OURS}
    for name, scenes in splits.items():
        if not isinstance(scenes, list) or not all(isinstance(scene, str) for scene in scenes):
            faults.add(file, name, "is not a list of scene names", REMEDY)
            return {}
    if not splits:
        faults.add(file, "", f"names none of the splits {', '.join(OURS)}", REMEDY)
    for ours in ("train", "val"):
        if ours in splits and f"mini_{ours}" in splits:
            faults.add(file, f"mini_{ours}", f"stands beside {ours}, and both would be {ours}", "keep one of them")
    return splits
