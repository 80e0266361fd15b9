"""Artifacts to an object root and back: every byte checked on the way, taken up again where it was interrupted.

An object root is laid out as a folder is: `STAGE/KEY16/FILE`, the manifest last. What a push has sent is kept in a
journal beside the artifact, as the store's etags: what is still there under the same one is not sent again.
"""

import contextlib
import json
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from common.errors import DataError, UserError
from storage.artifact import Artifact
from storage.at_once import all_at_once
from storage.atomic import atomic_file, write_bytes
from storage.checksum import crc32c
from storage.copy import copying, finished_in, is_whole, take_place
from storage.damage import Damaged
from storage.lock import CLOSED, locked
from storage.manifest import MANIFEST, SENT, Manifest, parse_manifest, read_manifest, shards
from storage.places import lease_of, place_of
from storage.remote import Found, Remote, bare
from storage.remote_lease import RemoteLease, leased
from storage.remote_parts import remove_parts, wait_for_parts
from storage.sent_parts import noted_shards

MANIFEST_TRIES = 3

Told = Callable[[str], None]


def manifest_there(remote: Remote, stage: str, key: str) -> Manifest | None:
    """The manifest of an artifact in an object root, None where there is none; key: its first 16 digits are enough.

    Raises DataError where it is damaged, UserError for one of another format.
    """
    found = _manifest_there(remote, stage, key)
    return found and found[0]


def push(
    folder: Path,
    remote: Remote,
    lease: RemoteLease | None = None,
    again: bool = False,
    sent: Told = lambda name: None,
    waiting: Told = lambda line: None,
) -> tuple[Manifest, int]:
    """Send the finished artifact in a folder; (the manifest that is there now, bytes that were sent).

    It is there already where another process has sent one of the same key, be its bytes others. Who writes parts of it
    is waited for. lease: the artifact's, where the caller holds it. again: send all of it, in place of what is there.
    Raises Damaged for a file that is not what the manifest says, ValueError for a folder without a finished artifact.
    """
    in_parts = noted_shards(folder)
    manifest = finished_in(folder, in_parts)
    stage, key = manifest.recipe.stage, manifest.key
    with ExitStack() as stack:
        if lease is None:  # before the lock, as runs take them: else each could have what the other waits for
            lease = stack.enter_context(leased(remote, lease_of(stage, key), "geomim push", waiting))
        stack.enter_context(locked(folder, "geomim push", shared=True, waiting=waiting))
        manifest = finished_in(folder, in_parts)  # it may have been made again meanwhile
        text, has_parts = (folder / MANIFEST).read_bytes(), bool(shards(manifest))
        if has_parts:
            wait_for_parts(remote, stage, key, waiting)
        place, sizes = place_of(stage, key), {name: size for name, (size, _) in manifest.files.items()}
        there = None if again else manifest_there(remote, stage, key)
        if there is not None and there.crc32c != manifest.crc32c:
            return there, 0
        if again:
            remote.delete(f"{place}/{MANIFEST}")  # readers are to find nothing rather than half of each
        journal = Journal(folder, remote, manifest)
        found = remote.objects(place)
        if there is not None:
            todo = [name for name, size in sizes.items() if _size(found, name) != size]
        else:
            was_sent = {name for name, shard in in_parts.items() if name in found and found[name].etag == shard.etag}
            todo = [n for n in sizes if again or not (n in was_sent or journal.has(n, found.get(n)))]
        for name in sizes.keys() - set(todo):
            sent(name)
        if lost := [name for name in todo if name in in_parts and not (folder / name).exists()]:
            raise DataError(
                f"{remote.url}/{place}/{lost[0]}: is not what was sent when its part was written, and nowhere else; "
                f"`geomim {stage} --force` makes it again"
            )

        def send(name: str) -> None:
            assert lease is not None
            if not is_whole(folder / name, manifest.files[name]):
                raise Damaged(folder / name, "is not what was written")
            lease.check()
            journal.add(name, remote.put(f"{place}/{name}", folder / name))
            sent(name)

        all_at_once(send, todo)
        found = remote.objects(place)
        other = [name for name, size in sizes.items() if _size(found, name) != size]
        for name in todo:
            if not journal.has(name, found.get(name)) and not journal.got(name, remote.etag(f"{place}/{name}")):
                other.append(name)
        if other:
            raise DataError(
                f"{remote.url}/{place}/{other[0]}: is not what was sent: somebody else writes there; run the same "
                "command again"
            )
        lease.check()
        if there is None and remote.put_new(f"{place}/{MANIFEST}", text) is None:
            there = manifest_there(remote, stage, key)  # of one who took this process for dead
        if has_parts:
            remove_parts(remote, stage, key)
        journal.remove()
        return there or manifest, sum(sizes[name] for name in todo)


def pull(
    remote: Remote,
    stage: str,
    key: str,
    root: Path,
    without_shards: bool = False,
    came: Told = lambda name: None,
    waiting: Told = lambda line: None,
) -> tuple[Artifact, int]:
    """Bring an artifact to its place in `root`; (it there, bytes that came: 0 if it was there).

    without_shards: leave the big files of stores in parts there, for their readers to fetch (storage/shard_cache.py).
    Files that an interrupted pull left are kept where they are whole. Raises UserError where there is no such artifact,
    DataError for an object that is not what the manifest says.
    """
    found = _manifest_there(remote, stage, key)
    if found is None:
        raise UserError(f"{remote.url}/{place_of(stage, key)}: there is no finished artifact; `geomim push` sends one")
    manifest, text = found
    target = Artifact(root, stage, manifest.key)
    with locked(target.path, "geomim pull", waiting=waiting):
        here = None if any(damage.matters for damage in target.damages("small")) else target.manifest()
        later = shards(manifest) if without_shards else set()
        if here is None:
            making, names = copying(target), manifest.files.keys() - later
        else:  # what it lacks are shards that were left there
            lacking = {name for name in manifest.files if not (target.path / name).exists()}
            making, names = target.path, lacking - later if here.crc32c == manifest.crc32c else set()
        todo = [name for name in sorted(names) if not is_whole(making / name, manifest.files[name])]
        for name in manifest.files.keys() - set(todo):
            came(name)

        def bring(name: str) -> None:
            with atomic_file(making / name) as file:
                remote.fetch(f"{place_of(stage, key)}/{name}", file, manifest.files[name])
            came(name)

        all_at_once(bring, todo)
        if here is None:
            write_bytes(making / MANIFEST, text)
            if without_shards:
                mark_sent(making, manifest, manifest)
            take_place(making, target)
    return target, sum(manifest.files[name][0] for name in todo)


def mark_sent(folder: Path, here: Manifest, there: Manifest) -> None:
    """Note that an object root has the artifact in a folder, or one of the same key that another process made."""
    write_bytes(folder / SENT, f"{here.crc32c} {there.crc32c}\n".encode())


def is_sent(folder: Path) -> bool:
    """Whether that was noted of what is in the folder now."""
    try:
        manifest = read_manifest(folder)
        return manifest is not None and (folder / SENT).read_text().split()[0] == manifest.crc32c
    except (Damaged, ValueError, OSError, IndexError):
        return False


class Journal:
    """Which files of an artifact were sent where, and the etags that they got. Safe to use from several threads."""

    def __init__(self, folder: Path, remote: Remote, manifest: Manifest):
        self._path = folder.with_name(f".push-{folder.name}-{crc32c(remote.url.encode()):08x}")
        self._lock, self._etags = threading.Lock(), dict[str, str]()
        with contextlib.suppress(OSError, ValueError):
            first, *lines = self._path.read_text().splitlines()
            if first == manifest.crc32c:
                for line in lines:  # the last may be half of one
                    name, etag = json.loads(line)
                    self._etags[name] = etag
        self._write("w", "\n".join([manifest.crc32c, *map(json.dumps, self._etags.items())]))

    def has(self, name: str, found: Found | None) -> bool:
        """Whether an object is the one that was sent."""
        return found is not None and self.got(name, found.etag)

    def got(self, name: str, etag: str) -> bool:
        return bool(etag) and self._etags.get(name) == etag

    def add(self, name: str, etag: str) -> None:
        with self._lock:
            self._etags[name] = bare(etag)
            self._write("a", json.dumps([name, bare(etag)]))

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self, mode: str, line: str) -> None:
        try:
            with open(self._path, mode) as file:
                file.write(f"{line}\n")
        except OSError as error:
            if error.errno not in CLOSED:  # a folder to read from alone: an interrupted push then sends all again
                raise


def _manifest_there(remote: Remote, stage: str, key: str) -> tuple[Manifest, bytes] | None:
    name = f"{place_of(stage, key)}/{MANIFEST}"
    for tries_left in reversed(range(MANIFEST_TRIES)):
        if (found := remote.get(name)) is None:
            return None
        text, _ = found
        try:
            manifest = parse_manifest(text, Path(name))
            break
        except Damaged as error:  # on its way, perhaps
            if not tries_left:
                raise DataError(remote.damaged(name, error.what)) from None
        except ValueError as error:
            raise UserError(f"{remote.url}/{error}") from None
    if manifest.key[: len(key)] != key[:64] or manifest.recipe.stage != stage:
        raise DataError(remote.damaged(name, f"is of another key, {manifest.recipe.stage} {manifest.key}"))
    return manifest, text


def _size(found: dict[str, Found], name: str) -> int | None:
    return found[name].size if name in found else None
