"""What `manifest.json` says of a finished artifact, and what of its folder is gone or is not what was written."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.checksum import FileSum, crc32c, sum_of_file
from storage.damage import Damaged
from storage.key import canonical_json, digest
from storage.parts import FLAGS, PART_STORES
from storage.sent_parts import noted_shards

FORMAT = 2
MANIFEST, RECIPE = "manifest.json", "recipe.json"
COLUMNS = ("count", "check")  # the small arrays of a store in parts
TOKEN = "token"  # the one array of a store in parts that is not in parts
SENT = ".sent"  # beside the manifest: what of it an object root has, see storage/mirror.py

# Files for people: nobody computes with them. Where one of these is damaged, no work is done again for it. (What the
# recipe says stands in the manifest, too.)
FOR_PEOPLE = ("*.png", "*.jsonl", "*events.out.tfevents.*", "*.md", RECIPE)
SMALL_STORE = 64_000_000  # bytes up to which a store in parts is checked whole before it is used

Extent = Literal["sizes", "small", "all"]


class Recipe(BaseModel):
    """All that decides a stage's result; its digest is the key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, str]  # name -> identity of the input, see tasks/engine/plan.py
    files: dict[str, str] = {}  # external files: name or field -> SHA-256

    @property
    def key(self) -> str:
        return digest(self.model_dump())


class Manifest(BaseModel):
    """What stands in `manifest.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    key: str
    recipe: Recipe
    summary: dict[str, Any]
    files: dict[str, tuple[int, str]]  # path in the folder -> (bytes, see `FileSum`)
    created: str  # ISO 8601, UTC
    seconds: float  # of work in the run that finished it
    made: dict[str, Any]  # with which code, packages and device, by which command, from which folders
    crc32c: str = ""  # of all the above

    @property
    def bytes(self) -> int:
        return sum(size for size, _ in self.files.values())

    def inputs(self) -> dict[str, tuple[str, str]]:
        """Name -> (stage, key) of the artifacts that it was made from.

        The recipe has what stands for them in the key, which is the same for several that make no difference.
        """
        inputs = (self.made.get("step") or self.made).get("inputs")
        if inputs is None:
            return {name: (name, key) for name, key in self.recipe.inputs.items()}
        return {name: (stage, key) for name, (stage, key) in inputs.items()}

    def contents(self) -> dict[str, tuple[int, int]]:
        """Top-level entry -> (files, bytes)."""
        return grouped({name: size for name, (size, _) in self.files.items()})

    def sum(self) -> str:
        """The CRC32C of everything but itself."""
        return f"{crc32c(canonical_json(self.model_dump(mode='json', exclude={'crc32c'})).encode()):08x}"


@dataclass(frozen=True)
class FileDamage:
    """A file of an artifact that is gone or is not what was written."""

    name: str  # path in the folder
    what: str

    @property
    def matters(self) -> bool:
        """Whether anybody computes with the file."""
        return not any(fnmatch(Path(self.name).name, pattern) for pattern in FOR_PEOPLE)

    def __str__(self) -> str:
        return f"{self.name} {self.what}"


def damages_in(
    folder: Path,
    extent: Extent = "sizes",
    key: str | None = None,
    chosen: set[str] | None = None,
    checked: Callable[[str], None] = lambda name: None,
) -> Iterator[FileDamage]:
    """What of the finished artifact in a folder is gone or is not what was written, see `Artifact.damages`.

    chosen: names of the files to read, in place of `extent`'s. checked: called with each file's name.
    """
    try:
        manifest = read_manifest(folder)
    except (Damaged, ValueError) as error:
        yield FileDamage(MANIFEST, error.what if isinstance(error, Damaged) else str(error))
        return
    if manifest is None:
        return
    if key is not None and manifest.key != key:
        yield FileDamage(MANIFEST, f"is of another key, {manifest.key[:16]}")
        return
    elsewhere = shards_elsewhere(folder, manifest)
    read = {"sizes": set(), "small": _small(manifest), "all": set(manifest.files)}[extent] if chosen is None else chosen
    for name, record in manifest.files.items():
        if name in elsewhere and not (folder / name).exists():
            continue
        if (what := _difference(folder / name, record, name in read)) is not None:
            yield FileDamage(name, what)
        checked(name)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a folder, None where there is none. Raises Damaged, or ValueError for one of another format."""
    file = folder / MANIFEST
    try:
        text = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Damaged(file, f"cannot be read ({error.strerror})") from error
    return parse_manifest(text, file)


def parse_manifest(text: bytes, file: Path) -> Manifest:
    """The manifest that a file holds. Raises Damaged, or ValueError for one of another format."""
    try:
        content = json.loads(text)
        if content.get("format") != FORMAT:
            raise ValueError(f"{file}: has format {content.get('format')}, not {FORMAT}: another geomim made it")
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise Damaged(file, f"lacks or misstates {'.'.join(map(str, error.errors()[0]['loc']))}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise Damaged(file, f"is not what was written ({error})") from None
    if manifest.sum() != manifest.crc32c:
        raise Damaged(file, "is not what was written: its checksum is another")
    return manifest


def shards(manifest: Manifest) -> set[str]:
    """The files that are big and read one by one: the chunks of stores in parts, without their small arrays."""
    return {name for name in manifest.files if is_shard(name)}


def is_shard(name: str) -> bool:
    """Whether a file of an artifact's is one of these."""
    store, *rest = name.split(os.sep)
    return store in PART_STORES and len(rest) > 2 and rest[1] == "c" and rest[0] not in (*COLUMNS, TOKEN, FLAGS)


def shards_elsewhere(folder: Path, manifest: Manifest) -> set[str]:
    """The shards of the artifact in a folder that need not be there: an object root has them, see storage/mirror.py."""
    try:
        if (folder / SENT).read_text().split()[1:] == [manifest.crc32c]:
            return shards(manifest)
    except OSError:
        pass
    return {name for name, shard in noted_shards(folder).items() if manifest.files.get(name) == shard.record}


def records_elsewhere(folder: Path) -> dict[str, tuple[int, str]]:
    """What the manifest says of them, or will say when all parts are done. Raises as `read_manifest`."""
    if (manifest := read_manifest(folder)) is None:
        return {name: shard.record for name, shard in noted_shards(folder).items()}
    return {name: manifest.files[name] for name in shards_elsewhere(folder, manifest)}


def record(path: Path) -> tuple[int, str]:
    """(bytes, see `FileSum`) of a file, which is on the disk then."""
    total = sum_of_file(path, sync=True)
    return path.stat().st_size, total


def files(folder: Path) -> list[str]:
    """Paths of files below a folder, sorted, without the manifest and whatever has a name that begins with a dot."""
    names, todo = [], [""]
    while todo:
        place = todo.pop()
        try:
            entries = list(os.scandir(folder / place))
        except (FileNotFoundError, NotADirectoryError):  # not there, or no more
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append(os.path.join(place, entry.name))
            elif entry.is_file():  # not a link to nothing, or to a folder
                names.append(os.path.join(place, entry.name))
    return sorted(name for name in names if name != MANIFEST)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Top-level entry -> (files, bytes) of what stands in a folder now."""
    return grouped({name: (folder / name).stat().st_size for name in files(folder)})


def grouped(sizes: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Bytes by path -> (files, bytes) by top-level entry."""
    out: dict[str, tuple[int, int]] = {}
    for name, size in sizes.items():
        entry = name.partition(os.sep)[0]
        count, total = out.get(entry, (0, 0))
        out[entry] = count + 1, total + size
    return out


def _difference(path: Path, recorded: tuple[int, str], read: bool) -> str | None:
    try:
        size = path.stat().st_size
    except OSError as error:
        return "is gone" if isinstance(error, FileNotFoundError) else f"cannot be looked at ({error.strerror})"
    if size != recorded[0]:
        return None if _only_consolidated(path, recorded) else f"has {size} bytes, not {recorded[0]}"
    if not read:
        return None
    try:
        total = sum_of_file(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if total == recorded[1] else "has other bytes than were written"


def _only_consolidated(path: Path, recorded: tuple[int, str]) -> bool:
    """Whether a group's zarr.json differs by consolidated metadata alone, which tools add to open it faster."""
    if path.name != "zarr.json":
        return False
    try:
        content = json.loads(path.read_bytes())
        content.pop("consolidated_metadata", None)
    except (OSError, ValueError, AttributeError):
        return False
    text = json.dumps(content, indent=2).encode()  # as zarr writes it
    total = FileSum()
    total.add(text)
    return (len(text), str(total)) == recorded


def _small(manifest: Manifest) -> set[str]:
    """The files that are cheap to read: all but the chunks in parts of big stores, which their readers check."""
    sizes = manifest.contents()
    big = {s for s, (_, size) in sizes.items() if size > SMALL_STORE and f"{s}/{FLAGS}/zarr.json" in manifest.files}

    def cheap(name: str) -> bool:
        store, *rest = name.split(os.sep)
        return store not in big or rest[-1] == "zarr.json" or rest[0] == TOKEN

    return {name for name in manifest.files if cheap(name)}
