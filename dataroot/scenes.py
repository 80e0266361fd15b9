"""Which scenes of a dataset are taken: all, those of which every file is there, or those that are named.

One blob of nuScenes' trainval has the files of some scenes, and the tables of all of them.
"""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from common.files import patiently
from dataroot.faults import MAX_EXAMPLES, Faults
from dataroot.files import inside
from dataroot.links import Links, follow
from dataroot.names import Scenes
from dataroot.selection import Selection
from dataroot.tables import Table

FEWER = "ask for fewer files with ingest.sweeps or ingest.frames"


def choose_scenes(
    dataroot: Path, tables: dict[str, Table], links: Links, selection: Selection, scenes: Scenes, faults: Faults
) -> Selection:
    """The samples of the scenes that are wanted; a warning says what is left out, a fault that nothing is left."""
    scene = tables["scene"]
    if scenes == "all" or not scene.readable or len(selection.samples) == 0:
        return selection
    of_sample = links["sample", "scene_token"][selection.samples]  # (S,)
    names, counted = scene.text("name"), np.unique(of_sample[of_sample >= 0])
    if scenes == "available":
        lacks = _lacks(dataroot, tables["sample_data"], selection)
        first: dict[int, str] = {}
        for row in np.flatnonzero(lacks != "").tolist():
            first.setdefault(int(of_sample[row]), lacks[row])
        keep, why = ~np.isin(of_sample, list(first)), _examples(names, first)
        nothing, remedy = f"no scene has all of its files: {why}", f"unpack a blob whole, or {FEWER}"
    else:
        _check_names(scene, scenes, faults)
        rows = np.flatnonzero(np.isin(scene["name"], [name.encode() for name in scenes]))
        keep, why = np.isin(of_sample, rows), ", ".join(names[rows[:MAX_EXAMPLES]])
        why = f"{len(rows):,} are named, {why}{', ...' if len(rows) > MAX_EXAMPLES else ''}"
        nothing, remedy = "no sample is of a scene that ingest.scenes names", "name scenes of scene.json"
    taken = len(np.unique(of_sample[keep]))
    if not keep.any():
        if scenes == "available" or not faults:
            faults.add(scene.file, "name", nothing, remedy)
    elif taken < len(counted):
        word = scenes if isinstance(scenes, str) else "the names"
        left = f"{len(counted) - taken:,} of {len(counted):,} scenes are left out by ingest.scenes, {word}"
        faults.warn("scenes", f"{left} ({why}): scores are those of the rest, and other people's are not")
    return selection.kept(keep)


def _lacks(dataroot: Path, data: Table, selection: Selection) -> np.ndarray:
    """(S,) of each sample the first thing that it needs and that is not there, "" where all is."""
    samples = len(selection.samples)
    files = selection.keys if selection.lidar_files else selection.cameras
    needed = np.concatenate([files, selection.sweeps, selection.frames.reshape(samples, -1)], 1)  # rows of sample_data
    rows = inside(data, np.unique(needed[needed >= 0]))  # paths that lead elsewhere have a fault of their own
    paths = data.text("filename", rows).tolist()
    gone = np.zeros(data.rows, bool)
    gone[rows] = ~_there(dataroot, paths)
    out = np.full(samples, "", object)
    missing = follow(needed, gone, False)  # (S, K)
    for sample in np.flatnonzero(missing.any(1)).tolist():
        out[sample] = str(data.text("filename", needed[sample][missing[sample]][:1])[0])
    for sample, channel in np.argwhere(selection.keys < 0).tolist():
        out[sample] = f"a key frame of {selection.channels[channel]}"
    return out


def _there(dataroot: Path, paths: list[str]) -> np.ndarray:
    """(n,) bool: which of the paths are files. A folder is listed once: to ask for half a million files takes long."""
    listed: dict[str, set[str]] = {}
    out = np.zeros(len(paths), bool)
    for place, path in enumerate(paths):
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = _files_in(dataroot / folder)
        out[place] = name in listed[folder]
    return out


def _files_in(folder: Path) -> set[str]:
    def look() -> set[str]:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}

    try:
        return patiently(folder, look)
    except OSError:  # is not there, or may not be read
        return set()


def _examples(names: np.ndarray, first: dict[int, str]) -> str:
    told = [f"{names[scene]} lacks {what}" for scene, what in list(first.items())[:MAX_EXAMPLES]]
    return ", ".join([*told, *(["..."] if len(first) > MAX_EXAMPLES else [])])


def _check_names(scene: Table, wanted: Iterable[str], faults: Faults) -> None:
    names = scene.text("name").tolist()
    for name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names[:MAX_EXAMPLES])}, ..."
            remedy = f"name scenes of scene.json in ingest.scenes: {hint}"
            faults.add(scene.file, "name", f"no scene is {name!r}, which ingest.scenes names", remedy)
