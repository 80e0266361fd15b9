"""A finished artifact into another root: every byte checked on the way, and taken up again where it was interrupted."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from storage.artifact import Artifact
from storage.atomic import atomic_file, sync_folder
from storage.checksum import PIECE, FileSum, sum_of_file
from storage.damage import Damaged
from storage.lock import locked
from storage.manifest import MANIFEST, Manifest, read_manifest


def copy_artifact(
    source: Path, root: Path, copied: Callable[[str], None] = lambda name: None, waiting: Callable = lambda line: None
) -> tuple[Artifact, int]:
    """Copy the artifact in a folder to its place in `root`; (it there, bytes that were copied: 0 if it was there).

    Files that an interrupted copy left are kept where they are whole. Raises Damaged for a file that is not what the
    manifest says, ValueError for a folder without a finished artifact; whatever stood in its place before stays.
    """
    manifest = _finished(source)
    target = Artifact(root, manifest.recipe.stage, manifest.key)
    if target.path.exists() and target.path.samefile(source):
        return target, 0
    making, total = target.path.with_name(f".copy-{target.path.name}"), 0
    # In one order, whatever is copied where: the same artifact may be on its way back.
    shared = {source.resolve(): True, target.path.resolve(): False}
    with ExitStack() as locks:
        for place in sorted(shared):
            locks.enter_context(locked(place, "geomim cp", shared[place], waiting))
        manifest = _finished(source)  # it may have been made again meanwhile
        if target.is_intact():
            return target, 0
        for name, record in manifest.files.items():
            if not _is(making / name, record):
                _copy(source / name, making / name, record)
                total += record[0]
            copied(name)
        with atomic_file(making / MANIFEST) as file:
            file.write((source / MANIFEST).read_bytes())
        if target.has_manifest():
            target.set_aside()
        elif target.path.exists():
            target.remove()  # work that an interrupted run began: the result is here
        os.replace(making, target.path)
        sync_folder(target.path.parent)
    return target, total


def _finished(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise ValueError(f"{folder}: holds no finished artifact; finish it first")
    return manifest


def _is(path: Path, record: tuple[int, str]) -> bool:
    try:
        return path.stat().st_size == record[0] and sum_of_file(path) == record[1]
    except OSError:
        return False


def _copy(source: Path, target: Path, record: tuple[int, str]) -> None:
    total = FileSum()
    with open(source, "rb") as reading, atomic_file(target) as writing:
        while piece := reading.read(PIECE):
            total.add(piece)
            writing.write(piece)
        if (writing.tell(), str(total)) != record:
            raise Damaged(source, "is not what was written")
