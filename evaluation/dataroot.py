"""What the evaluation of a results file needs of a dataroot: its samples by split, and what is to be found in them.

True boxes come from the tables as they are, in the global frame; the index holds them in the LiDAR's.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import DataError, UserError
from common.progress import say
from dataroot.categories import box_counts, labels_of
from dataroot.counts import lidar_points
from dataroot.faults import Faults
from dataroot.files import check_maps
from dataroot.kinds import FIELDS
from dataroot.links import Links
from dataroot.read import checked_tables
from dataroot.selection import Choice
from dataroot.splits import split_scenes
from dataroot.tables import Table, read_table
from dataroot.velocity import box_velocities
from evaluation.flat import (
    ATTRIBUTE_NUMBER,
    NO_ATTRIBUTE,
    RACK,
    UNKNOWN_ATTRIBUTE,
    FlatBoxes,
    counted,
    yaws,
)
from models.boxes import Boxes
from models.names import CATEGORY_TO_CLASS
from storage.index import has_points

THREADS = 16  # that look at map masks
NO_FILES = Choice(lidar=False)  # a LiDAR says where the car was; where there is none, other sensors do


class Truth(NamedTuple):
    boxes: FlatBoxes  # counted
    ego: np.ndarray  # (samples, 2) m, global
    racks: dict[int, Boxes]  # sample -> global boxes


def split_samples(dataroot: Path, version: str) -> dict[str, list[str]]:
    """The devkit's name of a split -> the tokens of its samples; "" for those of none. Reads two tables.

    Raises UserError where there is no such folder of tables, DataError where they cannot be read.
    """
    if not (dataroot / version).is_dir():
        raise UserError(f"{dataroot}: holds no folder of tables {version}; check --dataroot and --version")
    faults = Faults()
    scene, sample = (
        read_table(dataroot, f"{version}/{name}.json", FIELDS[name], faults, name) for name in ("scene", "sample")
    )
    splits, names = split_scenes(dataroot, version, scene.text("name"), faults)
    if faults:
        raise DataError(faults.report(f"{dataroot} ({version})"))
    split_of = dict(zip(scene["token"].tolist(), splits))
    out: dict[str, list[str]] = {}
    for token, scene_token in zip(sample.text("token"), sample["scene_token"].tolist()):
        out.setdefault(names.get(split_of.get(scene_token, ""), ""), []).append(token)
    return out


def has_annotations(dataroot: Path, version: str, tokens: list[str]) -> bool:
    """Whether anything is annotated in these samples: in `v1.0-test` nothing is. Raises DataError as above."""
    name, field, faults = "sample_annotation", "sample_token", Faults()
    table = read_table(dataroot, f"{version}/{name}.json", {field: FIELDS[name][field]}, faults, name)
    if faults:
        raise DataError(faults.report(f"{dataroot} ({version})"))
    return not {token.encode() for token in tokens}.isdisjoint(table[field].tolist())


def check_dataset(dataroot: Path, version: str) -> None:
    """Raise DataError where the devkit would stop at the tables or the map masks, or go on with wrong numbers."""
    faults = Faults()
    tables, links, _ = checked_tables(dataroot, version, faults, NO_FILES)
    check_maps(dataroot, tables, THREADS, faults)
    if faults:
        raise DataError(faults.report(f"{dataroot} ({version})"))
    _check_categories(dataroot, version, tables, links, faults)


def read_truth(dataroot: Path, version: str, tokens: list[str]) -> Truth:
    """What is to be found in these samples, numbered by their place. Raises DataError where the tables have faults."""
    faults = Faults()
    tables, links, selection = checked_tables(dataroot, version, faults, NO_FILES)
    if faults:
        raise DataError(faults.report(f"{dataroot} ({version})"))
    _check_categories(dataroot, version, tables, links, faults)
    number = {token.encode(): place for place, token in enumerate(tokens)}
    place = np.array([number.get(token, -1) for token in tables["sample"]["token"].tolist()], np.int64)

    rows = np.flatnonzero(place[selection.samples] >= 0)
    poses = links["sample_data", "ego_pose_token"][selection.posed[rows]]
    ego = np.zeros((len(tokens), 2))
    ego[place[selection.samples[rows]]] = tables["ego_pose"]["translation"][poses, :2]

    box = tables["sample_annotation"]
    sample = place[links["sample_annotation", "sample_token"]]
    category = links["instance", "category_token"][links["sample_annotation", "instance_token"]]
    names = tables["category"].text("name")
    label_of = labels_of(names, {})
    measured = has_points(lidar_points(box, selection), 1) | (box["num_radar_pts"] > 0)
    rows = np.flatnonzero((sample >= 0) & (label_of[category] >= 0) & measured)
    boxes = FlatBoxes(
        sample=sample[rows].astype(np.int32),
        label=label_of[category[rows]].astype(np.int8),
        center=box["translation"][rows],
        size=box["size"][rows],
        yaw=yaws(box["rotation"][rows]),
        velocity=box_velocities(tables, links)[rows, :2],
        attribute=_attributes(tables, links)[rows],
        score=np.ones(len(rows)),
    )
    racks = _racks(box, np.flatnonzero((sample >= 0) & (names == RACK)[category]), sample)
    return Truth(boxes[counted(boxes, ego, racks)], ego, racks)


def _check_categories(dataroot: Path, version: str, tables: dict[str, Table], links: Links, faults: Faults) -> None:
    """Say which boxes are of categories that a results file knows no class for; DataError where all of them are."""
    counts = box_counts(tables, links)
    if not set(counts) & set(CATEGORY_TO_CLASS):
        named = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:5])
        raise DataError(
            f"{dataroot} ({version}): none of its {sum(counts.values()):,} boxes is of a nuScenes category of the "
            f"detection classes ({named}): a results file cannot be scored on it. Map the categories with "
            "ingest.classes: the finetune stage then scores what it finds"
        )
    if "unknown_categories" in faults.warnings:
        say(f"evaluate: {faults.warnings['unknown_categories']}, which `geomim evaluate` does not read")


def _attributes(tables: dict[str, Table], links: Links) -> np.ndarray:
    """(rows of sample_annotation,) numbers as in FlatBoxes."""
    names = tables["attribute"].text("name")
    codes, targets = links.lists["sample_annotation", "attribute_tokens"]
    numbers = [ATTRIBUTE_NUMBER.get(names[rows[0]], UNKNOWN_ATTRIBUTE) if rows else NO_ATTRIBUTE for rows in targets]
    return np.array(numbers, np.int8)[codes]


def _racks(box: Table, rows: np.ndarray, sample: np.ndarray) -> dict[int, Boxes]:
    out = {}
    for place in np.unique(sample[rows]).tolist():
        mine = rows[sample[rows] == place]
        size, unknown = box["size"][mine], np.full((len(mine), 2), np.nan)
        labels = np.full(len(mine), -1)
        out[place] = Boxes.from_nuscenes(box["translation"][mine], size, box["rotation"][mine], unknown, labels)
    return out
