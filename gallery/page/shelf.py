"""What the page can open: the finished artifacts of roots, and folders in nuScenes format, each by a name for links."""

import contextlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.flat import flat
from evaluation.table import main_scores
from gallery.look import Gallery
from gallery.opened import STORES, open_any, versions_in
from storage.artifact import RECIPE
from storage.damage import ASIDE, Damaged
from storage.manifest import MANIFEST, Manifest, read_manifest
from storage.sentences import in_sentences
from tasks.engine.stage import STAGES

MOST_OPEN = 8  # galleries that are kept
MOST_DIFFERENCES = 3  # settings beside an artifact's name
LONGEST_SETTING = 24  # characters
HOW_IT_RAN = ("threads", "loaders", "ranks", "device", "seconds_between_saves", "part_size")  # makes no difference


@dataclass(frozen=True)
class Entry:
    """One thing to open."""

    id: str  # in links: stage/key, or dataroot/name
    path: Path
    stage: str  # "dataroot" of a folder in nuScenes format
    version: str | None = None  # of a dataroot's tables


class Shelf:
    """What was named on the command line, and what stands beside it in the same roots. Safe to use from threads.

    dataroot: where artifacts' files are now, if not where they were. Raises UserError where there is nothing to open.
    """

    def __init__(self, paths: Iterable[Path], dataroot: Path | None = None, version: str | None = None):
        self._dataroot, self._version = dataroot, version
        self._roots: list[Path] = []
        self._single: list[Entry] = []
        self._opened: OrderedDict[tuple[str, int], Gallery] = OrderedDict()
        self._known: dict[str, Entry] = {}
        self._lock = threading.Lock()  # of what is above
        self._opening: dict[str, threading.Lock] = {}  # one a name: what is big is opened once, not by each thread
        named = [place for path in paths if (place := self._add(Path(path).absolute())) is not None]
        ids = {entry.path: id for id, entry in self.entries().items()}
        if not ids:
            where = ", ".join(map(str, self._roots))
            raise UserError(f"{where}: holds no finished artifact; `geomim run` makes some, and a dataroot will do too")
        self.chosen = [ids[path] for path in named if path in ids]  # names of what the user named itself, in order

    def entries(self) -> dict[str, Entry]:
        """By name, as the folders are now: by stage, the newest first."""
        found: dict[str, Entry] = {}
        for entry in [*self._in_roots(), *self._single]:
            id, number = entry.id, 1
            while id in found and found[id].path != entry.path:
                id, number = f"{entry.id}~{number + 1}", number + 1
            found[id] = Entry(id, entry.path, entry.stage, entry.version)
        self._known = found
        return found

    def listed(self) -> list[dict[str, Any]]:
        """For the page: each entry with when it was made, its scores, and the settings that tell it from the others."""
        entries = list(self.entries().values())
        manifests = {entry.id: _manifest(entry.path) for entry in entries}
        out = []
        for entry in entries:
            manifest = manifests[entry.id]
            others = [m for e in entries if e.stage == entry.stage and (m := manifests[e.id]) is not None]
            row: dict[str, Any] = {"id": entry.id, "stage": entry.stage, "name": entry.path.name}
            if manifest is not None:
                row |= {"created": manifest.created, "scores": _scores(manifest)}
                row["settings"] = _differences(manifest, others)
            elif entry.stage != "dataroot":
                row["damaged"] = True
            out.append(row)
        return out

    def gallery(self, id: str) -> Gallery:
        """The opened artifact or dataroot. Raises UserError for an unknown name, DataError for a damaged artifact."""
        entry = self._known.get(id) or self.entries().get(id)
        if entry is None or not entry.path.exists():
            raise UserError(f"{id}: is not among what is shown here; was it deleted?")
        with self._lock:
            opening = self._opening.setdefault(id, threading.Lock())
        with opening:
            key = id, _changed(entry.path)  # made again since: opened again
            with self._lock:
                if key in self._opened:
                    self._opened.move_to_end(key)
                    return self._opened[key]
            gallery = Gallery(open_any(entry.path, self._dataroot, entry.version))
            with self._lock:
                self._opened[key] = gallery
                while len(self._opened) > MOST_OPEN:
                    self._opened.popitem(last=False)
            return gallery

    def galleries(self) -> Iterator[Gallery]:
        """What was named itself; else all that there is and reads: evaluations, teachers, the rest, each newest first.

        Raises as `gallery` does of what was named.
        """
        entries, named = self.entries(), {self._known[id].path for id in self.chosen}
        if named:
            yield from (self.gallery(id) for id, entry in entries.items() if entry.path in named)
            return
        first = ("evaluate", "teacher")
        for entry in sorted(entries.values(), key=lambda e: first.index(e.stage) if e.stage in first else len(first)):
            with contextlib.suppress(UserError):  # also of what is damaged
                with in_sentences():
                    gallery = self.gallery(entry.id)
                    _ = gallery.opened.bev, gallery.opened.samples
                yield gallery

    def _add(self, path: Path) -> Path | None:
        """Take up a folder that was named; its path, where it is itself something to open."""
        if not path.exists():
            raise UserError(f"{path}: there is no such folder; name a root of artifacts, an artifact or a dataroot")
        path = path.parent if path.name in STORES else path
        if (path / MANIFEST).exists() or (path / RECIPE).exists():
            if path.parent.name not in STAGES:
                raise UserError(f"{path}: an artifact is opened where it belongs, in ROOT/STAGE/KEY")
            if not (path / MANIFEST).exists():
                raise UserError(f"{path}: is unfinished work; `geomim {path.parent.name}` goes on with it")
            self._add_root(path.parent.parent)
            return path
        if versions := versions_in(path):
            if self._version is not None and self._version not in versions:
                raise UserError(f"{path}: holds {', '.join(versions)}, not {self._version}")
            chosen = [self._version] if self._version else versions
            for version in chosen:
                name = path.name if len(chosen) == 1 else f"{path.name}/{version}"
                self._single.append(Entry(f"dataroot/{name}", path, "dataroot", version))
            return path
        if path.name in STAGES:
            self._add_root(path.parent)
        elif any((path / stage).is_dir() for stage in STAGES):
            self._add_root(path)
        else:
            raise UserError(
                f"{path}: is no root of artifacts (STAGE/KEY), no artifact ({MANIFEST}) and no dataroot "
                "(VERSION/sample.json)"
            )
        return None

    def _add_root(self, root: Path) -> None:
        if root not in self._roots:
            self._roots.append(root)

    def _in_roots(self) -> Iterator[Entry]:
        for stage in STAGES:
            found = [
                folder
                for root in self._roots
                for folder in (root / stage).glob("*")
                if ASIDE not in folder.name and not folder.name.startswith(".") and (folder / MANIFEST).is_file()
            ]
            for folder in sorted(found, key=_changed, reverse=True):
                yield Entry(f"{stage}/{folder.name}", folder, stage)


def _changed(folder: Path) -> int:
    """When an artifact was finished, ns; 0 of what has no manifest."""
    try:
        return (folder / MANIFEST).stat().st_mtime_ns
    except OSError:
        return 0


def _manifest(folder: Path) -> Manifest | None:
    return _read(folder, _changed(folder))


@lru_cache(1024)
def _read(folder: Path, changed: int) -> Manifest | None:
    """The manifest, or None where there is none that reads."""
    try:
        return read_manifest(folder) if changed else None
    except (Damaged, ValueError):
        return None


def _scores(manifest: Manifest) -> dict[str, float]:
    return main_scores(manifest.summary)


def settings(manifest: Manifest) -> dict[str, Any]:
    """All that its step was told, flat: "detector.seed" -> 0."""
    step = manifest.made.get("step")
    return dict(flat(step["config"] if isinstance(step, dict) and "config" in step else manifest.recipe.config))


def _differences(manifest: Manifest, others: list[Manifest]) -> dict[str, Any]:
    """Its settings that tell it best from the others of its stage: those that split them most evenly come first."""
    own, all_settings = settings(manifest), [settings(other) for other in others]

    def surprise(name: str) -> float:
        """The entropy of a setting's values, bits."""
        counts = np.array([*Counter(str(other.get(name)) for other in all_settings).values()])
        shares = counts / counts.sum()
        return float(-(shares * np.log2(shares)).sum())

    told = {name: surprise(name) for name in own if name.rpartition(".")[2] not in HOW_IT_RAN}
    best = sorted((name for name in told if told[name] > 0), key=lambda name: -told[name])
    short = [name for name in best if len(str(own[name])) <= LONGEST_SETTING]
    return {name.rpartition(".")[2]: own[name] for name in short[:MOST_DIFFERENCES]}
