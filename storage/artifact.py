"""Artifacts: the folder `ROOT/<stage>/<key[:16]>/` that a stage leaves, and the manifest that says it is whole.

A folder without `manifest.json` is not there, whatever else it holds: it is work to go on from. The manifest is written
last and atomically and records what the folder holds, so that a hit can be checked against the disk.
"""

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.atomic import write_json
from storage.key import digest
from storage.parts import count_done

MANIFEST = "manifest.json"
RECIPE = "recipe.json"
PROGRESS = "progress.json"


class Recipe(BaseModel):
    """All that decides a stage's result; its digest is the key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, str]  # stage -> key
    files: dict[str, str] = {}  # external files: name or field -> SHA-256

    @property
    def key(self) -> str:
        return digest(self.model_dump())


class Manifest(BaseModel):
    """What stands in `manifest.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    key: str
    recipe: Recipe
    summary: dict[str, Any]
    contents: dict[str, tuple[int, int]]  # top-level entry -> (files, bytes)
    created: str  # ISO 8601, UTC
    seconds: float  # of work in the run that finished it
    made_with: dict[str, str]  # package -> version

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.contents.values())


@dataclass(frozen=True)
class Artifact:
    """The place of one stage's result, there or not."""

    root: Path
    stage: str
    key: str

    @property
    def path(self) -> Path:
        return self.root / self.stage / self.key[:16]

    def manifest(self) -> Manifest | None:
        """The manifest, or None if the artifact is not there. A manifest that does not read counts as not there."""
        return read_manifest(self.path)

    def is_whole(self) -> bool:
        """Whether the manifest is there, is this key's, and the folder still holds what it says."""
        manifest = self.manifest()
        return manifest is not None and manifest.key == self.key and contents(self.path) == manifest.contents

    @property
    def summary(self) -> dict[str, Any]:
        """What the stage said of its result. Raises FileNotFoundError if the artifact is not there."""
        return self._manifest_or_raise().summary

    @property
    def config(self) -> dict[str, Any]:
        """The config that made it, as in the key."""
        return self._manifest_or_raise().recipe.config

    def _manifest_or_raise(self) -> Manifest:
        manifest = self.manifest()
        if manifest is None:
            raise FileNotFoundError(f"{self.path / MANIFEST}: the {self.stage} artifact is not there")
        return manifest

    def progress(self) -> tuple[int, int] | None:
        """(done, all) parts or steps of an interrupted run; (0, 0) if it cannot tell, None if it never began."""
        if not (self.path / RECIPE).is_file():
            return None
        for store in sorted(self.path.glob("*.zarr")):
            if (parts := count_done(store)) is not None:
                return parts
        try:
            state = json.loads((self.path / PROGRESS).read_text())
            return int(state["done"]), int(state["total"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, 0

    def write_progress(self, done: int, total: int) -> None:
        """How far a stage without a store in parts has come (steps of training); `status` shows it."""
        write_json(self.path / PROGRESS, {"done": done, "total": total})

    def begin(self, recipe: Recipe) -> None:
        """Make the folder, or take up what an interrupted run left in it. A damaged result loses its manifest first."""
        (self.path / MANIFEST).unlink(missing_ok=True)
        if not (self.path / RECIPE).is_file():
            write_json(self.path / RECIPE, recipe.model_dump())

    def finish(self, recipe: Recipe, summary: dict[str, Any], seconds: float, made_with: dict[str, str]) -> Manifest:
        """Write the manifest: from here on the artifact is there. Then drop its dot files: checkpoints."""
        (self.path / PROGRESS).unlink(missing_ok=True)
        manifest = Manifest(
            key=self.key,
            recipe=recipe,
            summary=summary,
            contents=contents(self.path),
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            seconds=round(seconds, 2),
            made_with=made_with,
        )
        write_json(self.path / MANIFEST, manifest.model_dump(mode="json"))
        for leftover in self.path.glob(".*"):
            leftover.unlink()
        return manifest

    def remove(self) -> None:
        """Delete the folder: renamed away first, so that a kill in between leaves no half artifact under this name."""
        if self.path.exists():
            trash = self.path.with_name(f".trash-{self.path.name}-{os.getpid()}")
            os.replace(self.path, trash)
            shutil.rmtree(trash, ignore_errors=True)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a folder, or None where there is none that reads."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Top-level entry -> (files, bytes), without the manifest and files whose name begins with a dot."""
    out = {}
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if entry.name == MANIFEST or entry.name.startswith("."):
            continue
        out[entry.name] = _count(entry)
    return out


def _count(path: Path) -> tuple[int, int]:
    if path.is_file():
        return 1, path.stat().st_size
    counts = [_count(Path(entry.path)) for entry in os.scandir(path)]
    return sum(files for files, _ in counts), sum(size for _, size in counts)
