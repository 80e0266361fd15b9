"""Writes a simulated world: `simulate(config, out)` makes `out` a dataroot in nuScenes format.

While it runs, `out` holds `simulating.json`; the last step renames it to `simulated.json`. Both hold the config: a
finished world of the same config is left as it is, an unfinished one is started afresh.
"""

import json
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from common.cores import SharingContext, available_cores
from common.errors import UserError
from common.processes import end_with_parent
from common.progress import progress, say
from dataroot.records import Records, common_tables, merge, record_in, says, write_tables
from models.names import CAMERAS, CATEGORY_TO_CLASS, CLASSES
from simulate.config import VERSION, SimulateConfig
from simulate.scenes import Scenes, scenes_of
from storage.lock import locked
from storage.sentences import in_sentences

DONE, UNFINISHED = "simulated.json", "simulating.json"
_FOLDERS = ("samples", "sweeps", "maps", "gts")


def simulate(config: SimulateConfig, out: Path, scenes: tuple[str, ...] | None = None) -> dict:
    """Writes the world of a config into `out` (tests take fewer scenes) and returns what it holds.

    The summary: `scenes`, `samples`, `annotations`, `boxes` {split: {class: boxes with points}} and `seconds`.
    One process at a time writes it: another one waits, and finds it there. Raises UserError where `out` holds anything
    but a simulated world of the same config.
    """
    out = Path(out).absolute()
    if out.parent.exists() and not out.parent.is_dir():
        raise UserError(f"{out.parent}: is a file; name another folder for the simulated world")
    world = scenes_of(config.scenes)
    scenes = scenes or world.names
    identity = {"version": VERSION, "config": config.key_fields(), "scenes": list(scenes)}
    with in_sentences(out):
        # Asked without the lock first: of a world in a folder that is for reading alone there is none to be had.
        if (summary := _finished(out, identity)) is None:
            with locked(out, "geomim simulate", waiting=lambda line: say(f"simulate: {line}")):
                if (summary := _finished(out, identity)) is None:
                    return _simulate(config, out, world, identity)
        return {**summary, "seconds": 0.0}


def _simulate(config: SimulateConfig, out: Path, world: Scenes, identity: dict) -> dict:
    start, scenes = time.perf_counter(), identity["scenes"]
    _prepare(out, identity, (*_FOLDERS, world.version))
    workers = min(config.workers or available_cores(), len(scenes))
    job = partial(_record, config, out)
    if workers == 1:
        parts = list(progress(map(job, scenes), "simulate", total=len(scenes), unit="scenes"))
    else:
        with ProcessPoolExecutor(workers, mp_context=SharingContext(threads=1), initializer=end_with_parent) as pool:
            parts = list(progress(pool.map(job, scenes), "simulate", total=len(scenes), unit="scenes"))
    tables = merge([common_tables(CAMERAS), *parts])
    write_tables(tables, out / world.version)
    summary = _summary(tables, world.train)
    _write_json(out / UNFINISHED, identity | {"summary": summary})
    os.replace(out / UNFINISHED, out / DONE)
    return {**summary, "seconds": round(time.perf_counter() - start, 1)}


def _record(config: SimulateConfig, out: Path, name: str) -> Records:
    from simulate.record import record_scene  # Numba's import is left to the processes that need it

    return record_scene(config, name, out)


def _finished(out: Path, identity: dict) -> dict | None:
    """The summary of the same world that is there already. Raises UserError where another one is."""
    if not (out / DONE).is_file():
        return None
    record = record_in(out / DONE)
    if says(record, identity) and "summary" in record:
        return record["summary"]
    before, now = record.get("config") or {}, identity["config"]
    changed = [f"{k} {before.get(k)} -> {v}" for k, v in now.items() if before.get(k) != v]
    raise UserError(
        f"{out}: holds a simulated world of another config ({', '.join(changed) or 'another version'}); "
        "choose another folder or remove this one"
    )


def _prepare(out: Path, identity: dict, folders: tuple[str, ...]) -> None:
    """Makes `out` ready to be written."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; name a folder for the simulated world")
    if (out / UNFINISHED).is_file():
        for folder in folders:
            shutil.rmtree(out / folder, ignore_errors=True)
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: is not empty and not a simulated world; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    _write_json(out / UNFINISHED, identity)


def _summary(tables: Records, train: tuple[str, ...]) -> dict:
    scene_names = {scene["token"]: scene["name"] for scene in tables["scene"]}
    split_of = {
        sample["token"]: "train" if scene_names[sample["scene_token"]] in train else "val"
        for sample in tables["sample"]
    }
    categories = {record["token"]: record["name"] for record in tables["category"]}
    class_of = {r["token"]: CATEGORY_TO_CLASS[categories[r["category_token"]]] for r in tables["instance"]}
    boxes = {split: dict.fromkeys(CLASSES, 0) for split in ("train", "val")}
    for record in tables["sample_annotation"]:
        boxes[split_of[record["sample_token"]]][class_of[record["instance_token"]]] += record["num_lidar_pts"] > 0
    counts = {"scenes": "scene", "samples": "sample", "annotations": "sample_annotation"}
    return {name: len(tables[table]) for name, table in counts.items()} | {"boxes": boxes}


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
