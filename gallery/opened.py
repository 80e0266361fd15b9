"""An artifact, or a folder in nuScenes format, opened to look at: its samples and all that it was made from.

Everything is read when it is asked for. An artifact's picture may show what it was made from too, as far as that is in
the same root: of a detector's sample the teacher's map, say.
"""

import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from common.errors import DataError, UserError
from dataroot.faults import Faults
from dataroot.kinds import FIELDS
from dataroot.tables import read_table
from evaluation.submission import RESULTS
from gallery.results_file import ResultsFile
from models.names import LIDAR
from storage.artifact import Artifact
from storage.bev import BevReader
from storage.damage import Damaged
from storage.depth import DepthReader
from storage.index import Index, write_index
from storage.manifest import MANIFEST, Manifest, read_manifest
from tasks.engine.stage import STAGES, Step
from tasks.ingest.config import IngestConfig

STORES = ("index.zarr", "bev.zarr", "depth.zarr", "boxes.zarr")
Reader = TypeVar("Reader", BevReader, DepthReader)


class Opened:
    """See `open_artifact` and `open_dataroot`.

    stage: "dataroot" of a folder that was not ingested.
    """

    def __init__(
        self, path: Path, stage: str, index: Index, dataroot: Path, step: Step | None, manifest: Manifest | None
    ):
        self.path, self.stage, self.index, self.dataroot = path, stage, index, dataroot
        self.step, self.manifest = step, manifest

    @cached_property
    def lineage(self) -> list[Step]:
        """The artifact's step and those of all that it was made from, nearest first, as far as they are there."""
        steps, todo, seen = [], [self.step] if self.step else [], set()
        while todo:
            step = todo.pop(0)
            if step.artifact in seen:
                continue
            seen.add(step.artifact)
            steps.append(step)
            for artifact in step.inputs.artifacts.values():
                if (made := step_of(artifact.path)) is not None:
                    todo.append(made)
        return steps

    @cached_property
    def bev(self) -> BevReader | None:
        """The teacher's maps, None where there are none. Raises DataError for another format."""
        return next((_read(BevReader, path) for path in self._stores("teacher", "bev.zarr")), None)

    @cached_property
    def depth(self) -> DepthReader | None:
        """The LiDAR points in the cameras, None where there are none. Raises DataError for another format."""
        return next((_read(DepthReader, path) for path in self._stores("depth", "depth.zarr")), None)

    @cached_property
    def results(self) -> ResultsFile | None:
        """The boxes that the artifact itself predicts, None where it predicts none."""
        return ResultsFile(self.path / RESULTS) if (self.path / RESULTS).is_file() else None

    @cached_property
    def samples(self) -> np.ndarray:
        """(n,) rows of the index: all, or where the artifact predicts those that it predicts."""
        if self.results is None:
            return np.arange(len(self.index))
        return np.array([row for row, token in enumerate(self.index.token) if token in self.results], np.int64)

    def row(self, sample: str) -> int:
        """The row of a sample's token, of the beginning of one, or of a row's number. Raises UserError."""
        if sample.isdecimal() and len(sample) < 8:
            row = int(sample)
            if row >= len(self.index):
                raise UserError(f"sample {sample}: {self.path} has samples 0 to {len(self.index) - 1}, or name a token")
        else:
            found = [row for row, token in enumerate(self.index.token) if token.startswith(sample)]
            if len(found) != 1:
                what = "no sample's token" if not found else f"the beginning of {len(found)} tokens"
                raise UserError(f"sample {sample}: is {what} of {self.path}; name another, or a number from 0 up")
            row = found[0]
        if len(self.samples) < len(self.index) and row not in self.samples:
            first = f", the first is {self.samples[0]}" if len(self.samples) else ""
            raise UserError(f"sample {sample}: {self.path.name} predicts {len(self.samples)} others{first}")
        return row

    def _stores(self, stage: str, name: str) -> Iterator[Path]:
        for step in self.lineage:
            if step.stage.name == stage and (step.artifact.path / name / "zarr.json").is_file():
                yield step.artifact.path / name


def open_any(path: Path, dataroot: Path | None = None, version: str | None = None) -> Opened:
    """`open_artifact`, or `open_dataroot` of a folder that holds tables. Raises UserError and DataError."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such folder; `geomim du` lists the artifacts, and a dataroot will do too")
    if path.name in STORES:
        path = path.parent
    if (path / MANIFEST).exists():
        return open_artifact(path, dataroot)
    if found := versions_in(path):
        if version is None and len(found) > 1:
            raise UserError(f"{path}: holds {', '.join(found)}; say which by --version")
        return open_dataroot(path, version or found[0])
    if path.parent.name in STAGES:
        raise UserError(f"{path}: is unfinished work; `geomim {path.parent.name}` goes on with it")
    raise UserError(f"{path}: is neither an artifact ({MANIFEST}) nor a dataroot (VERSION/sample.json)")


def open_artifact(path: Path, dataroot: Path | None = None) -> Opened:
    """A finished artifact with the index that it was made from, in the same root.

    dataroot: where the files are now, if not where they were. Raises UserError, or DataError where it is damaged.
    """
    path = Path(path).absolute()
    try:
        manifest = read_manifest(path)
    except (Damaged, ValueError) as error:
        raise DataError(str(error)) from None
    if manifest is None:
        raise UserError(f"{path}: has no {MANIFEST}: it is no finished artifact")
    step = step_of(path)
    if step is None:
        raise DataError(f"{path / MANIFEST}: does not say what it was made from; make the artifact again to look at it")
    ingested = step.artifact if step.stage.name == "ingest" else step.inputs["ingest"]
    try:
        index = Index.open(ingested.path / "index.zarr")
    except FileNotFoundError:
        where = f"{ingested.stage}/{ingested.key[:16]}"
        raise UserError(
            f"{path}: its samples are in {where}, which is not in this root; `geomim cp` brings it"
        ) from None
    except ValueError as error:
        raise DataError(str(error)) from None
    return Opened(path, step.stage.name, index, dataroot or step.inputs.dataroot, step, manifest)


def open_dataroot(path: Path, version: str) -> Opened:
    """A folder in nuScenes format that was never ingested: its tables are checked and read now.

    Of a part of a dataset, the scenes that are whole. Its files are looked at as `geomim ingest` does, but for the
    points of its clouds: of trainval they are 24 GB, and a picture needs one. Raises DataError with every fault.
    """
    from tasks.ingest.run import ingest

    if not (path / version / "sample.json").is_file():
        raise UserError(f"{path / version}: holds no tables; there are {', '.join(versions_in(path)) or 'none'}")
    sensors = read_table(path, f"{version}/sensor.json", FIELDS["sensor"], Faults(), "sensor")
    lidar = LIDAR.encode() in sensors["channel"].tolist()
    arrays, attributes, _ = ingest(
        path, version, IngestConfig(sweeps=0, frames=0, read_gigabytes=0, scenes="available", lidar=lidar)
    )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "index.zarr"
        write_index(place, arrays, attributes)
        index = Index.open(place)
        for name in arrays:
            getattr(index, name)  # read while the files are there
    return Opened(path, "dataroot", index, path, None, None)


def versions_in(path: Path) -> list[str]:
    """The names of the folders of tables in a dataroot."""
    return sorted(table.parent.name for table in path.glob("*/sample.json"))


def _read(reader: type[Reader], path: Path) -> Reader:
    try:
        return reader(path)
    except ValueError as error:
        raise DataError(str(error)) from None


def step_of(path: Path) -> Step | None:
    """The step that made the artifact in a folder, None where nothing that reads says so."""
    artifact = Artifact(path.parent.parent, path.parent.name, path.name)
    manifest = artifact.manifest()
    if manifest is None or "step" not in manifest.made:
        return None
    try:
        return Step.from_json(manifest.made["step"], path.parent.parent)
    except (KeyError, ValueError):  # of a config that this version does not know
        return None
