"""All artifacts of a root: which there are, what they are made from, and what else killed runs left there."""

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from storage.artifact import INPUTS, PIN
from storage.atomic import write_json
from storage.damage import ASIDE, Damaged
from storage.key import canonical_json
from storage.leases import leases_folder
from storage.lock import holder, is_locked, lock_file
from storage.manifest import MANIFEST, RECIPE, TOKEN, FileDamage, Manifest, damages_in, files, read_manifest
from storage.stores import is_part_store, open_part_store

State = Literal["finished", "unfinished", "set aside", "unreadable"]
NAME = re.compile(r"[0-9a-f]{16}(\.damaged-.*)?")  # of an artifact's folder
PLACE = re.compile(r"([a-z]+)/([0-9a-f]{16})/")  # of one, in a path


@dataclass(frozen=True)
class StoredArtifact:
    """A folder of a root that is or was an artifact."""

    path: Path
    state: State
    manifest: Manifest | None

    @property
    def stage(self) -> str:
        return self.path.parent.name

    @property
    def pinned(self) -> bool:
        return (self.path / PIN).exists()

    @property
    def bytes(self) -> int:
        return sum((self.path / name).lstat().st_size for name in files(self.path))

    @property
    def changed(self) -> float:
        """When it was finished, or when something last happened to what is not (s since the epoch)."""
        if self.state == "finished":
            return (self.path / MANIFEST).stat().st_mtime
        return max((self.path / name).lstat().st_mtime for name in [".", *files(self.path)])

    def inputs(self) -> list[Path]:
        """The artifacts that it was or is being made from, there or not; and those whose weights its config names."""
        root = self.path.parent.parent
        if self.manifest is not None:
            named = named_in((self.manifest.made.get("step") or {}).get("config"), root)
            return [root / stage / key[:16] for stage, key in self.manifest.inputs().values()] + named
        try:
            inputs = json.loads((self.path / INPUTS).read_bytes())
            named = named_in(json.loads((self.path / RECIPE).read_bytes()), root)
            return [root / stage / key[:16] for stage, key in inputs.values()] + named
        except (OSError, ValueError, TypeError, AttributeError):
            return []


def stored_artifacts(root: Path) -> list[StoredArtifact]:
    """Every artifact of a root, finished or not, by stage and name."""
    entries = []
    for stage in sorted(root.iterdir()) if root.is_dir() else []:
        if stage.name.startswith(".") or not stage.is_dir():
            continue
        for path in sorted(stage.iterdir()):
            if not path.name.startswith(".") and (entry := stored_artifact(path)) is not None:
                entries.append(entry)
    return entries


def stored_artifact(path: Path) -> StoredArtifact | None:
    """The artifact in a folder, None where there is none."""
    if not NAME.fullmatch(path.name) or not ((path / MANIFEST).exists() or (path / RECIPE).exists()):
        return None
    try:
        manifest = read_manifest(path)
    except (Damaged, ValueError):
        return StoredArtifact(path, "set aside" if ASIDE in path.name else "unreadable", None)
    state: State = "set aside" if ASIDE in path.name else "finished" if manifest else "unfinished"
    return StoredArtifact(path, state, manifest)


def leftovers(root: Path) -> list[Path]:
    """What killed runs left and nobody will take up: trash, locks that nobody holds, half-made copies and files."""
    paths: list[Path] = []
    for folder in (root, *(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))):
        for path in folder.iterdir():
            if path.name.startswith((".trash-", ".copy-", ".push-")):
                name = path.name.removeprefix(".copy-").removeprefix(".push-")  # the latter has a URL's checksum behind
                target = path.with_name(name if name.startswith(".") else name[:16])
                paths += [] if is_locked(target) else [path]
            elif path.name.startswith(".") and path.name.endswith(".lock"):
                folder_of_lock = path.with_name(path.name.removeprefix(".").removesuffix(".lock"))
                assert lock_file(folder_of_lock) == path
                paths += [] if _in_use(path) else [path]
            elif path.name.startswith(".") and path.name.endswith(".leases"):
                artifact = path.with_name(path.name.removeprefix(".").removesuffix(".leases"))
                assert leases_folder(artifact) == path
                paths += [] if holder(artifact) else [path]
            elif path.name.startswith("..digests.json."):  # half written
                paths.append(path)
    return sorted(paths)


def with_inputs(entries: Iterable[StoredArtifact], roots: Iterable[Path]) -> set[Path]:
    """The folders in `roots` and all that they were made from, however indirectly."""
    by_path = {entry.path: entry for entry in entries}
    out: set[Path] = set()
    todo = list(roots)
    while todo:
        path = todo.pop()
        if path not in out:
            out.add(path)
            todo += by_path[path].inputs() if path in by_path else []
    return out


def named_in(config: Any, root: Path) -> list[Path]:
    """The artifacts of a root in which the files lie that a config names, such as weights to begin from."""
    return [root / stage / name for stage, name in PLACE.findall(canonical_json(config))]


def newer_than(entries: Iterable[StoredArtifact], days: float) -> list[Path]:
    """The folders to which something happened in the last so many days."""
    return [entry.path for entry in entries if time.time() - entry.changed < days * 86_400]


def check(
    path: Path, sample: int | None = None, checked: Callable[[str], None] = lambda name: None
) -> list[FileDamage]:
    """What is damaged of the artifact in a folder; of an unfinished one, of the parts that are flagged as done.

    sample: read so many parts of each store in parts, drawn at random, and everything else. Otherwise all is read.
    """
    if not (path / MANIFEST).exists():
        return list(_damaged_parts(path))
    chosen = None if sample is None else _chosen(path, sample)
    return list(damages_in(path, "all", chosen=chosen, checked=checked))


def _chosen(path: Path, sample: int) -> set[str] | None:
    """The names of files to read: all that is in no store in parts, and those of some parts."""
    import random

    try:
        manifest = read_manifest(path)
    except (Damaged, ValueError):
        return None
    assert manifest is not None  # whoever asks has seen one
    chosen: set[str] = set()
    parts_of: dict[str, dict[str, list[str]]] = {}  # store -> part -> its files
    for name in manifest.files:
        store, _, rest = name.partition(os.sep)
        array, *chunk = rest.split(os.sep)
        if is_part_store(path / store) and len(chunk) > 1 and chunk[0] == "c" and array != TOKEN:
            parts_of.setdefault(store, {}).setdefault(chunk[1], []).append(name)
        else:
            chosen.add(name)
    for of_store in parts_of.values():
        for part in random.sample(sorted(of_store), min(sample, len(of_store))):
            chosen |= set(of_store[part])
    return chosen


def _damaged_parts(path: Path) -> Iterator[FileDamage]:
    for folder in sorted(path.glob("*.zarr")):
        if not is_part_store(folder):
            continue
        try:
            store = open_part_store(folder)
        except (Damaged, ValueError, OSError) as error:
            yield FileDamage(folder.name, getattr(error, "what", str(error)))
            continue
        for part in range(store.parts.count):
            if store.parts.file(part).exists() and (damage := store.damage(part)) is not None:
                yield FileDamage(str(damage.path.relative_to(path)), damage.what)


def _in_use(lock: Path) -> bool:
    """Whether anybody holds a lock, alone or with others."""
    import fcntl

    try:
        with open(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def write_pin(path: Path, note: str) -> None:
    """Keep the artifact in a folder, and what it was made from, from `gc`."""
    write_json(path / PIN, {"note": note, "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})


def read_pin(path: Path) -> str | None:
    """The note of a pin, None where there is none."""
    try:
        return str(json.loads((path / PIN).read_text())["note"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return ""
