"""The ingest stage: a folder in nuScenes format -> `index.zarr`, or one report of all its faults."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DataError
from common.progress import say
from dataroot.faults import MAX_EXAMPLES, Faults
from dataroot.plausible import check_plausible
from dataroot.read import checked_tables
from dataroot.selection import Choice
from dataroot.splits import split_scenes
from models.names import CLASSES, LIDAR
from storage.artifact import Artifact
from storage.atomic import write_bytes
from storage.index import Index, IndexAttributes, write_index
from tasks.engine.stage import Inputs
from tasks.ingest.build import build_arrays
from tasks.ingest.config import IngestConfig
from tasks.ingest.deep import check_deep, record_of
from tasks.ingest.files import check_files
from tasks.ingest.report import counts_of, report
from tasks.ingest.sight import check_sight


def run(config: IngestConfig, inputs: Inputs, artifact: Artifact) -> dict[str, Any]:
    """Check everything, then write `index.zarr`. Raises DataError with the report, and writes nothing, on any fault."""
    arrays, attributes, looked_at = ingest(inputs.dataroot, inputs.version, config, artifact.path.parent)
    write_index(artifact.path / "index.zarr", arrays, attributes)
    summary = {"version": inputs.version, **counts_of(arrays), **looked_at}
    write_bytes(artifact.path / "report.md", report(summary).encode())
    return summary


def ingest(
    dataroot: Path, version: str, config: IngestConfig, folder: Path | None = None
) -> tuple[dict[str, np.ndarray], IndexAttributes, dict[str, Any]]:
    """The index's arrays and attributes, and what was looked at: counts, and warnings by name.

    folder: for the record of `config.deep` (tasks/ingest/deep.py) and the list of faulty files. Raises UserError or
    DataError.
    """
    faults = Faults()
    choice = Choice(config.sweeps, config.frames, config.leave_out, config.cameras, config.scenes, config.lidar)
    tables, links, selection = checked_tables(dataroot, version, faults, choice, config.classes)
    if selection.without_lidar:
        told = f"the tables have no {LIDAR}: the key frame nearest to a sample's time says where the car was"
        faults.warn("no_lidar", f"{told}, and boxes count without a point where num_lidar_pts is 0 of all")
    scene_split, split_names = split_scenes(dataroot, version, tables["scene"].text("name"), faults)
    if not faults:
        arrays = build_arrays(tables, links, selection, scene_split, config.classes)
        check_plausible(tables, links, arrays, selection.camera_names, faults)
    counts = check_files(dataroot, tables, selection, config, faults)
    if config.deep and not faults:
        assert folder is not None  # where what was looked at is kept
        counts |= check_deep(dataroot, arrays, config, record_of(dataroot, folder), faults)
    if not faults and config.lidar:
        check_sight(dataroot, version, arrays, config, faults)
    for sentence in faults.warnings.values():
        say(f"ingest: warning: {sentence}")
    if faults:
        raise DataError(faults.report(f"{dataroot} ({version})") + _listed(faults, folder))
    cameras = selection.camera_names
    attributes = IndexAttributes(version, cameras, CLASSES, split_names, config.lidar_columns, config.classes)
    return arrays, attributes, counts | {"warnings": faults.warnings}


def check_index(index: Index, dataroot: Path, config: IngestConfig, folder: Path) -> dict[str, int]:
    """`config.deep` for a dataset that was ingested before, its record in `folder`. Raises DataError with a report."""
    faults = Faults()
    arrays = {name: getattr(index, name) for name in ("camera_path", "frame_path", "lidar_path", "sweep_path")}
    counts = check_deep(dataroot, arrays, config, record_of(dataroot, folder), faults)
    if faults:
        raise DataError(faults.report(f"{dataroot} ({index.version})") + _listed(faults, folder))
    return counts


def _listed(faults: Faults, folder: Path | None) -> str:
    """Where more files are at fault than a report names: a sentence on the file that names all of them."""
    if len(faults.files) <= MAX_EXAMPLES or folder is None:
        return ""
    path = folder / "leave_out.yaml"
    lines = ["# The faulty files of the last check. In a config, this goes on without them.", "ingest:", "  leave_out:"]
    write_bytes(
        path, "\n".join([*lines, *(f"    - {json.dumps(f, ensure_ascii=False)}" for f in faults.files), ""]).encode()
    )
    return f"\n{path} names all {len(faults.files):,} files, as ingest.leave_out takes them"
