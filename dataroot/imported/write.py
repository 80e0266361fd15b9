"""Logs in py123d's format made a dataroot: `import_logs(root, out)`, which `geomim import` calls.

While it runs, `out` holds `importing.json`; the last step renames it to `imported.json`. A log is finished once
`.parts/LOG.json` has its records; the folder of tables, without which nothing opens `out`, comes last and at once. So
the same command goes on where it was stopped, and a finished import is left as it is.
"""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from common.cores import SharingContext, available_cores
from common.errors import StageFailed, UserError
from common.processes import end_with_parent
from common.progress import counting, say
from dataroot.imported.labels import category_of
from dataroot.imported.log import Log, find_logs
from dataroot.imported.package import require_py123d
from dataroot.imported.scene import MAP, import_log
from dataroot.names import SPLITS_FILE
from dataroot.records import Records, common_tables, merge, record_in, says, write_tables
from models.names import CATEGORY_TO_CLASS, OTHER_CATEGORIES
from storage.atomic import write_json
from storage.lock import locked
from storage.sentences import in_sentences

VERSION = 1  # of what an import writes
TABLES = "v1.0-trainval"  # the devkit knows train and val of this version alone
DONE, UNFINISHED, PARTS = "imported.json", "importing.json", ".parts"
SPLITS = ("train", "val", "test")
SHOWN = 5  # names in a sentence


def import_logs(
    root: Path, out: Path, rate: float = 2.0, val: Sequence[str] = (), leave_out: Sequence[str] = ()
) -> dict:
    """Write the logs at and below `root` into the dataroot `out`, a scene each, and return what it holds.

    rate: key frames a second. val: names of logs, or of the dataset's own splits, that are for validation; by default
    a split's name says what it is for. leave_out: names of logs.
    Raises UserError where py123d is missing, a name is wrong or `out` holds something else, DataError for a log that
    cannot be imported, StageFailed where one of its processes is killed.
    """
    require_py123d()
    out = Path(out).absolute()
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; name a folder for the dataroot")
    with in_sentences(out):
        folders = _folders(Path(root), val, leave_out)
        how = {"version": VERSION, "rate": rate, "root": str(Path(root).absolute())}
        identity = how | {"val": sorted(val), "logs": sorted(folders)}
        with locked(out, "geomim import", waiting=lambda line: say(f"import: {line}")):
            if (summary := _finished(out, identity)) is not None:
                return {**summary, "seconds": 0.0}
            start = time.perf_counter()
            _prepare(out, how)
            _import_all(folders, out, rate)
            summary = _assemble(out, identity)
            return {**summary, "seconds": round(time.perf_counter() - start, 1)}


def _folders(root: Path, val: Sequence[str], leave_out: Sequence[str]) -> dict[str, Path]:
    """The folder of each log that is wanted, by its name: that of the folder."""
    found: dict[str, Path] = {}
    splits = set()
    for folder in find_logs(root):
        if folder.name in found:
            raise UserError(
                f"{root}: has two logs {folder.name}, in {found[folder.name].parent} and {folder.parent}; "
                "import one of these folders at a time"
            )
        found[folder.name] = folder
        splits.add(folder.parent.name)
    if not found:
        raise UserError(
            f"{root}: holds no logs of py123d (folders with a sync.arrow); name the folder logs of what "
            "py123d-conversion wrote"
        )
    for option, names, known in (("--leave-out", leave_out, {*found}), ("--val", val, {*found, *splits})):
        if unknown := sorted(set(names) - known):
            listed = ", ".join(sorted(known, key=lambda name: (name in found, name))[:SHOWN])
            raise UserError(f"{option} {unknown[0]}: is none of what {root} holds: {listed}, ...")
    wanted = {name: folder for name, folder in found.items() if name not in leave_out}
    if not wanted:
        raise UserError(f"--leave-out: names all logs of {root}; leave one in")
    return wanted


def _finished(out: Path, identity: dict) -> dict | None:
    """The summary of the same import that is there already. Raises UserError where another one is."""
    if not (out / DONE).is_file():
        return None
    record = record_in(out / DONE)
    if says(record, identity) and "summary" in record:
        return record["summary"]
    raise UserError(f"{out}: holds an import of other logs or options; choose another folder or remove this one")


def _prepare(out: Path, how: dict) -> None:
    """Makes `out` ready: keeps the finished logs of an import that was made so, and nothing of another."""
    if (out / UNFINISHED).is_file():
        if not says(record_in(out / UNFINISHED), how):
            for folder in (TABLES, PARTS, "samples", "sweeps", "maps"):  # the tables first: nothing opens the rest
                shutil.rmtree(out / folder, ignore_errors=True)
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: is not empty and no import; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / UNFINISHED, how)


def _import_all(folders: dict[str, Path], out: Path, rate: float) -> None:
    """Every log that is not finished, in as many processes as there are cores."""
    left = {name: folder for name, folder in folders.items() if not _part(out, name).is_file()}
    workers = min(available_cores(), len(left))
    job = partial(_import_one, out=out, rate=rate)
    with counting("import", len(folders), "logs", done=len(folders) - len(left)) as step:
        for _ in map(job, left.values()) if workers <= 1 else _in_processes(job, list(left.values()), workers):
            step()


def _in_processes(job: partial, folders: list[Path], workers: int) -> Iterator[None]:
    """The first failure ends it: what other processes have begun is finished, what they have not is left."""
    with ProcessPoolExecutor(workers, mp_context=SharingContext(threads=1), initializer=end_with_parent) as pool:
        futures = [pool.submit(job, folder) for folder in folders]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise StageFailed(
                "import: one of its processes was killed, most likely for lack of memory; the same command goes on "
                "from there, log by log with `taskset -c 0` before it"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _import_one(folder: Path, out: Path, rate: float) -> None:
    log = Log(folder)
    records, facts = import_log(log, out, rate)
    os.sync()  # the files are on the disk before the part says so
    write_json(_part(out, log.name), {"records": records, **facts})


def _part(out: Path, name: str) -> Path:
    return out / PARTS / f"{name}.json"


def _assemble(out: Path, identity: dict) -> dict:
    """Tables and splits of all finished logs; then the import is done. Returns the summary."""
    parts = {name: json.loads(_part(out, name).read_text()) for name in identity["logs"]}
    boxes = sum((Counter(part["boxes"]) for part in parts.values()), Counter())
    categories = {label: category_of(label) for label in sorted(boxes)}
    channels = dict.fromkeys(_channels(parts))
    more = sorted({*categories.values()} - {*CATEGORY_TO_CLASS})
    shared = common_tables(channels, more) | {"map": [_blank_map(out, parts)]}
    tables = merge([shared, *(part["records"] for part in parts.values())])
    splits = _splits(parts, identity["val"])
    making = out / PARTS / TABLES
    shutil.rmtree(making, ignore_errors=True)
    write_tables(tables, making)
    write_json(making / SPLITS_FILE, splits)
    os.sync()
    shutil.rmtree(out / TABLES, ignore_errors=True)  # of an import that was stopped at its very end
    os.replace(making, out / TABLES)
    summary = _summary(tables, parts, splits, boxes, categories)
    write_json(out / UNFINISHED, identity | {"summary": summary})
    os.replace(out / UNFINISHED, out / DONE)
    shutil.rmtree(out / PARTS, ignore_errors=True)
    return summary


def _channels(parts: dict[str, dict]) -> Iterator[str]:
    """The cameras of all logs."""
    for part in parts.values():
        for row in part["records"]["sample_data"]:
            if row["is_key_frame"] and row["fileformat"] == "jpg":
                yield row["filename"].split("/")[1]


def _blank_map(out: Path, parts: dict[str, dict]) -> dict:
    path = out / "maps" / f"{MAP}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(path)
    logs = [row["token"] for part in parts.values() for row in part["records"]["log"]]
    return {"category": "semantic_prior", "token": MAP, "filename": f"maps/{path.name}", "log_tokens": logs}


def _splits(parts: dict[str, dict], val: Sequence[str]) -> dict[str, list[str]]:
    """Split -> scenes. A split of the dataset's that is called neither train, val nor test is for training."""
    out: dict[str, list[str]] = {"train": [], "val": []}
    for name, part in parts.items():
        words = part["split"].replace("-", "_").split("_")
        own = next((split for split in SPLITS if split in words), "train")
        given = "val" if name in val or part["split"] in val else "train"
        out.setdefault(given if val else own, []).append(name)
    return out


def _summary(
    tables: Records, parts: dict[str, dict], splits: dict[str, list[str]], boxes: Counter, categories: dict[str, str]
) -> dict:
    return {
        "tables": TABLES,
        "scenes": len(tables["scene"]),
        "samples": len(tables["sample"]),
        "sweeps": sum(row["fileformat"] == "pcd" for row in tables["sample_data"]),
        "annotations": len(tables["sample_annotation"]),
        "splits": {split: len(names) for split, names in splits.items()},
        "cameras": [row["channel"] for row in tables["sensor"] if row["modality"] == "camera"],
        "categories": {label: {"category": categories[label], "boxes": boxes[label]} for label in categories},
        "said": list(_said(parts, splits, boxes, categories)),
    }


def _said(
    parts: dict[str, dict], splits: dict[str, list[str]], boxes: Counter, categories: dict[str, str]
) -> Iterator[str]:
    """What is otherwise than a reader may think, a sentence each."""
    yield "points were in the car's frame: LIDAR_TOP stands where the LiDAR does, x right, y ahead, z up"
    yield "no map is imported: finetune.task=segmentation has no road to learn"
    for lidars in sorted({tuple(part["lidars"]) for part in parts.values() if len(part["lidars"]) > 1}):
        yield f"the points of {len(lidars)} LiDARs are LIDAR_TOP's: {', '.join(lidars)}"
    for channel, count in _counted(parts, "undistorted"):
        yield f"{channel}: the lens's distortion is taken out of its images ({count} logs)"
    for what, count in _counted(parts, "left_out"):
        yield f"{what} is left out ({count} logs)"
    if own := [label for label in categories if categories[label] not in (*CATEGORY_TO_CLASS, *OTHER_CATEGORIES)]:
        listed = ", ".join(f"{categories[label]} ({boxes[label]:,} boxes)" for label in own)
        yield f"categories that nuScenes has not are of no class until ingest.classes maps them: {listed}"
    if not boxes:
        yield "no log has boxes: nothing can be finetuned or scored on it, only pretrained with another's teacher"
    if not splits["val"]:
        yield "no scene is for validation: edit splits.json, or import once more with --val, into another folder"
    if not splits["train"]:
        yield "no scene is for training: fine to evaluate on"


def _counted(parts: dict[str, dict], name: str) -> list[tuple[str, int]]:
    return sorted(Counter(what for part in parts.values() for what in part[name]).items())
