"""A root that mirrors an object root: stages run in a folder of this machine, and what they leave is sent.

    ROOT/.mirrors               the object root's URL
    ROOT/STAGE/KEY16/.sent      what the object root has of this artifact: two checksums, of the manifest here and of
                                that there, which is another where two machines made the artifact at the same time
    ROOT/STAGE/KEY16/.parts/    what the object root has of an artifact in parts, as long as it is made
                                (storage/sent_parts.py)
    ROOT/.shards/               shards that were fetched to be read (storage/shard_cache.py)

What is finished here and not noted as sent is sent by the next run, so a kill between the two loses nothing. Artifacts
that another machine made come without their shards, which their readers fetch one by one.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from storage.artifact import Artifact
from storage.atomic import write_bytes
from storage.manifest import MANIFEST, Manifest
from storage.places import lease_of, place_of
from storage.remote import Remote, checked_url, remote_at
from storage.remote_lease import RemoteLease, leased
from storage.remote_parts import remove_parts, wait_for_parts
from storage.sent_parts import forget_notes
from storage.transfer import Told, is_sent, manifest_there, mark_sent, pull, push

MIRRORS = ".mirrors"
CACHE = "GEOMIM_CACHE"  # in the environment: where mirrors are made


@dataclass(frozen=True)
class Mirror:
    """A folder and the object root whose mirror it is."""

    root: Path
    remote: Remote

    def there(self, artifact: Artifact) -> Manifest | None:
        """What the object root has of an artifact; errors as of `manifest_there`."""
        return manifest_there(self.remote, artifact.stage, artifact.key)

    def unsent(self, artifact: Artifact) -> str:
        """Words, where an artifact that is finished here is not noted as sent."""
        return "" if is_sent(artifact.path) else f"is finished here, and not yet sent to {self.remote.url}"

    @contextmanager
    def alone(self, artifact: Artifact, what: str, waiting: Told) -> Iterator[RemoteLease]:
        """No other machine makes or sends the artifact inside."""
        with leased(self.remote, lease_of(artifact.stage, artifact.key), what, waiting) as lease:
            yield lease

    def bring(
        self,
        artifact: Artifact,
        came: Callable[[Artifact], object] = lambda artifact: None,
        waiting: Told = lambda line: None,
    ) -> None:
        """Have an artifact here, but for its shards, where the object root has it and this one does not, or damaged."""
        if artifact.has_manifest() and not any(damage.matters for damage in artifact.damages("small")):
            return
        if self.there(artifact) is not None:
            came(artifact)
            pull(self.remote, artifact.stage, artifact.key, self.root, without_shards=True, waiting=waiting)

    def send(self, artifact: Artifact, lease: RemoteLease) -> None:
        """Have a finished artifact there."""
        if not is_sent(artifact.path):
            there, _ = push(artifact.path, self.remote, lease)
            here = artifact.finished()
            mark_sent(artifact.path, here, there)
            if here.crc32c == there.crc32c:  # else the notes alone say which of its shards are there
                forget_notes(artifact.path)

    def forget(self, artifact: Artifact, waiting: Told) -> None:
        """Have the artifact there no more: it is to be made again. Inside `alone`; who writes parts is waited for."""
        wait_for_parts(self.remote, artifact.stage, artifact.key, waiting)
        remove_parts(self.remote, artifact.stage, artifact.key)
        self.remote.delete(f"{place_of(artifact.stage, artifact.key)}/{MANIFEST}")


def mirror_at(url: str) -> Mirror:
    """The mirror of an object root on this machine, made where it is not there. Raises UserError for no such URL."""
    url = checked_url(url)
    name = f"{re.sub('[^A-Za-z0-9.-]+', '-', url)[:60]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    root = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "geomim").absolute() / name
    if not (root / MIRRORS).is_file():
        try:
            write_bytes(root / MIRRORS, url.encode())
        except OSError as error:
            raise UserError(f"{root}: cannot be made ({error.strerror}); set {CACHE} to another folder") from None
    return Mirror(root, remote_at(url))


def mirror_of(root: Path) -> Mirror | None:
    """The mirror that a root is, None for an ordinary one."""
    try:
        return Mirror(root, remote_at((root / MIRRORS).read_text().strip()))
    except (FileNotFoundError, NotADirectoryError):
        return None
