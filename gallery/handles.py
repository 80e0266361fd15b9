"""What `import geomim` gives: a root, its artifacts and their samples, lazily, as arrays, dicts and pictures."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from PIL import Image

from common.amounts import duration, size
from common.errors import UserError
from evaluation.table import main_scores
from gallery.health import ODD, Facts, health
from gallery.look import Gallery, Look, usual
from gallery.opened import Opened, open_any
from models.boxes import Boxes
from storage.damage import Damaged
from storage.depth import SamplePoints
from storage.index import Index
from storage.manifest import Manifest, read_manifest
from tasks.engine.stage import STAGES

STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"


def open(path: str | Path, dataroot: str | Path | None = None, version: str | None = None) -> "RootView | ArtifactView":
    """A root of artifacts, one artifact, or a folder in nuScenes format.

    dataroot: where images and points are now, if not where they were. version: of a folder in nuScenes format, which
    tables, where it has several. Raises common.errors.UserError with one sentence where there is nothing to open, and
    its DataError where that is damaged.
    """
    path = Path(path)
    if path.is_dir() and any((path / stage).is_dir() for stage in STAGES):
        return RootView(path, Path(dataroot) if dataroot else None)
    return ArtifactView(open_any(path, Path(dataroot) if dataroot else None, version))


class RootView:
    """The finished artifacts of a root: `root["teacher"]` is a list, the newest first."""

    def __init__(self, path: Path, dataroot: Path | None = None):
        self.path, self._dataroot = path, dataroot

    def __getitem__(self, stage: str) -> list["ArtifactView"]:
        if stage not in STAGES:
            raise UserError(f"{stage}: there is no such stage; there are {', '.join(STAGES)}")
        return [ArtifactView(open_any(folder, self._dataroot)) for folder, _ in self._manifests(stage)]

    def _manifests(self, stage: str) -> list[tuple[Path, Manifest]]:
        found = [(f, m) for f in (self.path / stage).glob("*") if (m := _manifest(f)) is not None]
        return sorted(found, key=lambda pair: pair[1].created, reverse=True)

    def _rows(self) -> Iterator[tuple[str, str, str, str, str]]:
        for stage in STAGES:
            for folder, manifest in self._manifests(stage):
                scores = [f"{name} {score:.4f}" for name, score in main_scores(manifest.summary).items()]
                yield stage, folder.name, manifest.created, size(manifest.bytes), ", ".join(scores)

    def __repr__(self) -> str:
        return "\n".join([f"{self.path}", *("  ".join(row) for row in self._rows())])

    def _repr_html_(self) -> str:
        return f"<b>{escape(str(self.path))}</b>" + _table(("stage", "key", "made", "size", "scores"), self._rows())


class ArtifactView:
    """One finished artifact, or a folder in nuScenes format: a sequence of samples, which are rows of its index."""

    def __init__(self, opened: Opened):
        self._opened = opened
        self._gallery = Gallery(opened, networks=True)

    @property
    def path(self) -> Path:
        return self._opened.path

    @property
    def stage(self) -> str:
        """Which stage made it; "dataroot" of a folder that was not ingested."""
        return self._opened.stage

    @property
    def index(self) -> Index:
        """Samples, boxes, calibrations: see storage/index.py."""
        return self._opened.index

    @property
    def summary(self) -> dict[str, Any]:
        """What the stage says of its result."""
        return self._manifest.summary

    @property
    def config(self) -> dict[str, Any]:
        """What decides the result, as in its key."""
        return self._manifest.recipe.config

    @property
    def made(self) -> dict[str, Any]:
        """With which code, packages and device, by which command."""
        return {name: value for name, value in self._manifest.made.items() if name != "step"}

    @property
    def inputs(self) -> dict[str, "ArtifactView"]:
        """The artifacts that it was made from, by what they are to it; those of them that are in the same root."""
        root, named = self.path.parent.parent, self._manifest.inputs()
        folders = {name: root / stage / key[:16] for name, (stage, key) in named.items()}
        dataroot = self._opened.dataroot
        return {n: ArtifactView(open_any(folder, dataroot)) for n, folder in folders.items() if _manifest(folder)}

    @cached_property
    def health(self) -> dict[str, Facts]:
        """What its numbers look like, seen on a few samples; what is odd stands under "odd"."""
        return health(self.path)

    def store(self, name: str) -> zarr.Group:
        """A Zarr store of it, such as "bev.zarr", to read from. Raises UserError where there is none."""
        if not (self.path / name / "zarr.json").is_file():
            stores = ", ".join(sorted(path.name for path in self.path.glob("*.zarr"))) or "none"
            raise UserError(f"{self.path}: has no store {name}; there are {stores}")
        return zarr.open_group(str(self.path / name), mode="r")

    def sample(self, name: str) -> "SampleView":
        """A sample by its token, or the beginning of it. Raises UserError."""
        return SampleView(self, self._opened.row(name))

    def __len__(self) -> int:
        return len(self._opened.samples)

    def __getitem__(self, place: Any) -> Any:
        """The sample at a place, or those of a slice. Of an evaluation: of what it predicted."""
        rows = self._opened.samples[place]
        return [SampleView(self, int(row)) for row in rows] if np.ndim(rows) else SampleView(self, int(rows))

    @property
    def _manifest(self) -> Manifest:
        if self._opened.manifest is None:
            raise UserError(f"{self.path}: is a dataroot, which no stage made")
        return self._opened.manifest

    def __repr__(self) -> str:
        return f"<geomim {self.stage} {self.path}, {len(self)} samples>"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, Any]] = [("samples", len(self))]
        if self._opened.manifest is not None:
            rows += [("made", f"{self._manifest.created}, {duration(self._manifest.seconds)}")]
            rows += [(name, _short(value)) for name, value in self.summary.items()]
            rows += [(name, facts.get(ODD, "looks sound")) for name, facts in self.health.items()]
        return f"<b>{self.stage}</b> <code>{escape(str(self.path))}</code>" + _table(("", ""), rows)


class SampleView:
    """One key frame. Arrays are in its LIDAR_TOP frame (x right, y ahead, z up; m) unless they say otherwise."""

    def __init__(self, artifact: ArtifactView, row: int):
        self.artifact, self.row = artifact, row
        self._opened, self._gallery = artifact._opened, artifact._gallery

    @property
    def token(self) -> str:
        return str(self._opened.index.token[self.row])

    @property
    def facts(self) -> dict[str, Any]:
        """Its place, its boxes by class, points, active cells; with predictions, what became of them."""
        return self._gallery.facts(self.row)

    @property
    def boxes(self) -> Boxes:
        """Annotated boxes, those of no class (label -1) too."""
        return self._gallery.truth(self.row)

    @property
    def predictions(self) -> Boxes:
        """What the artifact's detector finds. Raises UserError where it has none."""
        return self._gallery.predictions(self.row)

    @property
    def bev(self) -> np.ndarray:
        """(C, X, Y) float16, the teacher's features. Raises UserError where none were made."""
        if self._opened.bev is None:
            raise UserError(f"{self.artifact.path}: no teacher's map belongs to it")
        return self._opened.bev.dense(self.row)

    @property
    def points(self) -> SamplePoints:
        """LiDAR points as the cameras see them: u, v (px), depth (m). Raises UserError where there are none."""
        if self._opened.depth is None:
            raise UserError(f"{self.artifact.path}: no depth store belongs to it")
        return self._opened.depth.read(self.row)

    def picture(self, width: int = 1920, **look: Any) -> Image.Image:
        """Its images and the view from above. look: fields of `gallery.look.Look`, such as map="activity"."""
        return self._gallery.sheet(self.row, replace(usual(self._opened), **look), width)

    def camera(self, name: str, width: int = 800, **look: Any) -> Image.Image:
        """One camera's image with what is drawn over it."""
        if name not in self._opened.index.cameras:
            raise UserError(f"{name}: there is no such camera; there are {', '.join(self._opened.index.cameras)}")
        wanted: Look = replace(usual(self._opened), **look)
        return self._gallery.camera(self.row, self._opened.index.cameras.index(name), wanted, width)

    def __repr__(self) -> str:
        return f"<geomim sample {self.row} {self.token} of {self.artifact.stage} {self.artifact.path.name}>"

    def _repr_html_(self) -> str:
        file = io.BytesIO()
        self.picture(1400).save(file, "WEBP", quality=80)
        data = base64.b64encode(file.getvalue()).decode()
        return (
            f'<img alt="{escape(repr(self), quote=True)}" src="data:image/webp;base64,{data}" style="max-width:100%">'
        )


def _manifest(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except (Damaged, ValueError):  # `geomim verify` says so
        return None


def _short(value: Any) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _table(head: Sequence[str], rows: Any) -> str:
    def line(cells: Sequence[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag} style='text-align:left'>{escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<table style="{STYLE}">{line(head, "th") if any(head) else ""}{body}</table>'
