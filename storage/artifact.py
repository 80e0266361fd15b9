"""Artifacts: the folder `ROOT/<stage>/<key[:16]>/` that a stage leaves, and the manifest that says it is whole.

A folder without `manifest.json` is not there, whatever else it holds: it is work to go on from. The manifest is written
last, when all else is on the disk, and names every file of the stage's with its size and checksum. Files that it does
not name are a user's own and do no harm. Nothing here deletes a finished artifact but `remove`, which is for `--force`
and `gc`; what is damaged is moved aside, to a name that says so.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any

from storage.atomic import sync_folder, write_json
from storage.damage import Damaged, set_aside
from storage.manifest import (
    MANIFEST,
    RECIPE,
    Extent,
    FileDamage,
    Manifest,
    Recipe,
    damages_in,
    files,
    read_manifest,
    record,
)
from storage.parts import count_done
from storage.sent_parts import noted_shards

PROGRESS = "progress.json"
INPUTS = ".inputs.json"  # of unfinished work: the artifacts that it reads
TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{32}")  # what a kill left of a file or store that was being written
PIN = ".pin"  # beside the manifest: `gc` leaves the artifact, and what it was made from, alone


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
        """The manifest, or None where there is none that reads."""
        try:
            return read_manifest(self.path)
        except (Damaged, ValueError):
            return None

    def has_manifest(self) -> bool:
        """Whether a stage was finished here, be it damaged since."""
        return (self.path / MANIFEST).exists()

    def is_intact(self) -> bool:
        """Whether the manifest is there, is this key's, and the files that it names have their sizes."""
        return self.has_manifest() and not any(damage.matters for damage in self.damages())

    def damages(self, extent: Extent = "sizes") -> Iterator[FileDamage]:
        """What of a finished artifact is gone or is not what was written.

        extent: "sizes" reads no file but the manifest. "small" reads and checks all but the shards of big stores, which
        their readers check chunk by chunk. "all" reads everything.
        """
        yield from damages_in(self.path, extent, self.key)

    def extras(self) -> list[str]:
        """Files that the manifest does not name: a user's own."""
        manifest = self.manifest()
        return [] if manifest is None else sorted(set(files(self.path)) - manifest.files.keys())

    @property
    def summary(self) -> dict[str, Any]:
        """What the stage reports of its result. Raises FileNotFoundError if the artifact is not there."""
        return self.finished().summary

    @property
    def config(self) -> dict[str, Any]:
        """The config that made it, as in the key."""
        return self.finished().recipe.config

    def finished(self) -> Manifest:
        """The manifest of what must be finished. Raises FileNotFoundError if it is not there."""
        manifest = self.manifest()
        if manifest is None:
            raise FileNotFoundError(f"{self.path / MANIFEST}: the {self.stage} artifact is not there")
        return manifest

    def is_begun(self) -> bool:
        """Whether there is work to go on from, and no result yet."""
        return (self.path / RECIPE).is_file() and not self.has_manifest()

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

    def begin(self, recipe: Recipe, inputs: Mapping[str, "Artifact"] = MappingProxyType({})) -> None:
        """Make the folder, or take up what an interrupted run left in it. inputs: what will be read, for `gc`."""
        write_json(self.path / RECIPE, recipe.model_dump())
        write_json(self.path / INPUTS, {name: [artifact.stage, artifact.key] for name, artifact in inputs.items()})

    def finish(
        self,
        recipe: Recipe,
        summary: dict[str, Any],
        seconds: float,
        provenance: dict[str, Any],
        outputs: Sequence[str] = ("*",),
    ) -> Manifest:
        """Drop what is left of interrupted work, bring every file to the disk, then write the manifest.

        From here on the artifact is there. provenance: see `Manifest.made`. outputs: patterns of the names that the
        stage gives to its files and stores; those that begin with a dot are for itself and go. Everything else is a
        user's, and stays.
        """
        for leftover in [*_leftovers(self.path, outputs)]:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        results = (name for name in files(self.path) if _is_any(name.partition(os.sep)[0], (*outputs, RECIPE)))
        sent = {name: shard.record for name, shard in noted_shards(self.path).items()}  # be they here or not
        records = sent | {name: record(self.path / name) for name in results if name not in sent}
        manifest = Manifest(
            key=self.key,
            recipe=recipe,
            summary=summary,
            files=dict(sorted(records.items())),
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            seconds=round(seconds, 2),
            made=provenance,
        )
        return self.rewrite_manifest(manifest)

    def rewrite_manifest(self, manifest: Manifest) -> Manifest:
        """Write a manifest, with its own checksum; as it will be read back."""
        manifest = Manifest.model_validate(manifest.model_dump(mode="json"))  # a NaN becomes None
        manifest = manifest.model_copy(update={"crc32c": manifest.sum()})
        write_json(self.path / MANIFEST, manifest.model_dump(mode="json"))
        sync_folder(self.path.parent)
        return manifest

    def unfinish(self) -> None:
        """Take the manifest away: what is in the folder becomes work to go on from."""
        (self.path / MANIFEST).unlink(missing_ok=True)

    def set_aside(self) -> Path:
        """Move the folder, which must be there, to `KEY.damaged-TIME` beside it; its new path."""
        target = set_aside(self.path)
        os.utime(target)  # when it happened, for `gc`
        return target

    def remove(self) -> None:
        """Delete the folder: renamed away first, so that a kill in between leaves no half artifact under this name."""
        if self.path.exists():
            trash = self.path.with_name(f".trash-{self.path.name}-{os.getpid()}")
            shutil.rmtree(trash, ignore_errors=True)
            os.replace(self.path, trash)
            shutil.rmtree(trash, ignore_errors=True)


def _is_any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _leftovers(folder: Path, outputs: Sequence[str]) -> Iterator[Path]:
    """What a finished artifact has no use for: what its stage kept for itself, and what a kill left half made."""
    for entry in folder.iterdir():
        making = TEMPORARY.fullmatch(entry.name)
        if entry.name in (PROGRESS, INPUTS) or (
            making and _is_any(making[1], (*outputs, RECIPE, PROGRESS, INPUTS, MANIFEST))
        ):
            yield entry
        elif entry.name.startswith("."):
            hidden = [pattern for pattern in outputs if pattern.startswith(".")]
            yield from [entry] if _is_any(entry.name, hidden) else []
        elif entry.is_dir() and not entry.is_symlink() and _is_any(entry.name, outputs):
            yield from _hidden(entry)


def _hidden(folder: Path) -> Iterator[Path]:
    """Entries whose names begin with a dot, at any depth."""
    for place, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            if name.startswith("."):
                yield Path(place) / name
        folders[:] = [name for name in folders if not name.startswith(".")]
