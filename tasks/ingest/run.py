"""The ingest stage: a folder in nuScenes format -> `index.zarr`, or one report of all its faults."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from models.names import CAMERAS, CLASSES
from storage.artifact import Artifact
from storage.index import IndexAttributes, write_index
from tasks.errors import DataError, UserError
from tasks.ingest.build import build_arrays
from tasks.ingest.checks import check_tables
from tasks.ingest.config import IngestConfig
from tasks.ingest.faults import Faults
from tasks.ingest.files import check_files
from tasks.ingest.links import Links, resolve
from tasks.ingest.selection import Selection, select
from tasks.ingest.splits import split_scenes
from tasks.ingest.tables import Table, read_tables
from tasks.stage import Inputs


def run(config: IngestConfig, inputs: Inputs, artifact: Artifact) -> dict[str, Any]:
    """Check everything, then write `index.zarr`. Raises DataError with the report, and writes nothing, on any fault."""
    arrays, attributes, counts = ingest(inputs.dataroot, inputs.version, config)
    write_index(artifact.path / "index.zarr", arrays, attributes)
    splits = Counter(arrays["split"].tolist())
    return {
        "version": inputs.version,
        "scenes": len(arrays["scene_name"]),
        "samples": len(arrays["token"]),
        "splits": {split or "none": splits[split] for split in sorted(splits)},
        "boxes": len(arrays["box_label"]),
        "sweeps": int(arrays["sweep_count"].sum()),
        "frames": int(arrays["frame_count"].sum()),
        **counts,
    }


def ingest(
    dataroot: Path, version: str, config: IngestConfig
) -> tuple[dict[str, np.ndarray], IndexAttributes, dict[str, int]]:
    """The index's arrays and attributes, and counts of what was looked at. Raises UserError or DataError."""
    faults = Faults()
    tables, links, selection = checked_tables(dataroot, version, config, faults)
    scene_split, split_names = split_scenes(dataroot, version, tables["scene"].text("name"), faults)
    counts = check_files(dataroot, tables, selection, config, faults)
    if faults:
        raise DataError(faults.report(f"{dataroot} ({version})"))
    arrays = build_arrays(tables, links, selection, scene_split)
    return arrays, IndexAttributes(version, CAMERAS, CLASSES, split_names, config.lidar_columns), counts


def checked_tables(
    dataroot: Path, version: str, config: IngestConfig, faults: Faults
) -> tuple[dict[str, Table], Links, Selection]:
    """The tables, where their tokens lead and what is chosen of them; what is wrong with them goes into `faults`.

    Raises UserError where there is no such folder.
    """
    if not (dataroot / version).is_dir():
        raise UserError(f"{dataroot}: holds no folder of tables {version}; check --dataroot and --version")
    tables = read_tables(dataroot, version, faults)
    links = resolve(tables)
    selection = select(tables, links, config)
    check_tables(tables, links, selection, faults)
    return tables, links, selection
