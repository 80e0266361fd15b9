"""A finished artifact into another root: every byte checked on the way, and taken up again where it was interrupted."""

import os
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path

from storage.artifact import Artifact
from storage.atomic import atomic_file, sync_folder, write_bytes
from storage.checksum import PIECE, FileSum, sum_of_file
from storage.damage import Damaged
from storage.lock import locked
from storage.manifest import MANIFEST, Manifest, read_manifest, shards_elsewhere


def copy_artifact(
    source: Path, root: Path, copied: Callable[[str], None] = lambda name: None, waiting: Callable = lambda line: None
) -> tuple[Artifact, int]:
    """Copy the artifact in a folder to its place in `root`; (it there, bytes that were copied: 0 if it was there).

    Files that an interrupted copy left are kept where they are whole. Raises Damaged for a file that is not what the
    manifest says, ValueError for a folder without a finished artifact; whatever stood in its place before stays.
    """
    manifest = finished_in(source)
    target = Artifact(root, manifest.recipe.stage, manifest.key)
    if target.path.exists() and target.path.samefile(source):
        return target, 0
    making, total = copying(target), 0
    # In one order, whatever is copied where: the same artifact may be on its way back.
    shared = {source.resolve(): True, target.path.resolve(): False}
    with ExitStack() as locks:
        for place in sorted(shared):
            locks.enter_context(locked(place, "geomim cp", shared[place], waiting))
        manifest = finished_in(source)  # it may have been made again meanwhile
        if target.is_intact():
            return target, 0
        for name, record in manifest.files.items():
            if not is_whole(making / name, record):
                _copy(source / name, making / name, record)
                total += record[0]
            copied(name)
        write_bytes(making / MANIFEST, (source / MANIFEST).read_bytes())
        take_place(making, target)
    return target, total


def take_place(making: Path, target: Artifact) -> None:
    """Move a finished copy to its artifact's place; what is there and finished is moved aside, unfinished work goes."""
    if target.has_manifest():
        target.set_aside()
    elif target.path.exists():
        target.remove()  # work that an interrupted run began: the result is here
    os.replace(making, target.path)
    sync_folder(target.path.parent)


def copying(target: Artifact) -> Path:
    """The folder in which a copy is made, beside its place."""
    return target.path.with_name(f".copy-{target.path.name}")


def finished_in(folder: Path, besides: Collection[str] = ()) -> Manifest:
    """The manifest in a folder. Raises ValueError where there is no finished artifact, or not all of it.

    besides: files that need not be there.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise ValueError(f"{folder}: holds no finished artifact; finish it first")
    if any(not (folder / name).exists() for name in shards_elsewhere(folder, manifest) - set(besides)):
        raise ValueError(f"{folder}: an object root has some of it alone; `geomim pull` brings it all to another root")
    return manifest


def is_whole(path: Path, record: tuple[int, str]) -> bool:
    """Whether a file is what a manifest's record of it says."""
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
