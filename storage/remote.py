"""An object root: named objects behind a URL, as artifacts' files lie in a folder.

    s3://BUCKET/PREFIX    gs://BUCKET/PREFIX    az://CONTAINER/PREFIX    file:///FOLDER (for trials)

obstore speaks to the stores, tries a request again by itself, and takes credentials and endpoint from the environment.
What still fails here (a time-out, an error of the server's, a body that breaks off) is tried again as a whole. A
conditional put whose answer was lost looks whether it was its own that came through. What is fetched is compared with
the size and checksum that its manifest has.
"""

import fcntl
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from common.errors import DataError, FileSystemError, UserError
from storage.checksum import FileSum

if TYPE_CHECKING:
    from obstore.store import ObjectStore

Result = TypeVar("Result")

SCHEMES = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "file": "who may write there",
}  # what an object root's URL begins with -> where the right to use it comes from
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # s, at most, before the tries after the first
SILENCE = "GEOMIM_OBJECT_TIMEOUT"  # s without an answer, or for one part of a big object, until a request is given up
DEFAULT_SILENCE = 60.0
PART = 8_000_000  # bytes of a request, of a big object
PARTS_AT_ONCE = 2  # of one object; several are sent at the same time


@dataclass(frozen=True)
class Found:
    """An object that is there. etag: the store's name for this content of it, see `bare`."""

    size: int  # bytes
    etag: str


class Remote:
    """The objects below a URL. Safe to use from several threads, and after pickling; not in a forked process.

    Every call raises UserError for what the user can mend (credentials, bucket, endpoint) and FileSystemError where the
    store goes on failing.
    """

    def __init__(self, url: str):
        """Raises UserError for what is no URL of an object root. Nothing is asked of the store yet."""
        self.url = checked_url(url)
        self.scheme = self.url.partition(":")[0]

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "scheme": self.scheme}

    @cached_property
    def _store(self) -> "ObjectStore":
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        silence = timedelta(seconds=number_set(SILENCE, DEFAULT_SILENCE))
        retry: Any = {
            "max_retries": 3,
            "retry_timeout": 3 * silence,
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
        }
        plain = any(os.environ.get(name, "").startswith("http://") for name in ENDPOINTS)
        client: Any = {"connect_timeout": min(silence, timedelta(seconds=10)), "read_timeout": silence}
        client |= {"timeout": timedelta(hours=1)} | ({"allow_http": True} if plain else {})
        try:
            if self.scheme == "file":
                Path(self.url.removeprefix("file://")).mkdir(parents=True, exist_ok=True)
                return from_url(self.url)
            return from_url(self.url, client_options=client, retry_config=retry)
        except OSError as error:
            raise UserError(f"{self.url}: cannot be made ({error.strerror}); choose another folder") from None
        except (BaseError, ValueError) as error:
            raise UserError(f"{self.url}: cannot be opened ({_cause(error)}); check {self._rights}") from None

    def objects(self, prefix: str) -> dict[str, Found]:
        """The objects whose names begin with a folder's, `prefix`, by the names' rest."""
        import obstore

        def ask() -> dict[str, Found]:
            found = [meta for page in obstore.list(self._store, prefix) for meta in page]
            return {m["path"][len(prefix) + 1 :]: Found(m["size"], bare(m["e_tag"])) for m in found}

        return self._patiently(f"{prefix}/", ask)

    def folders(self, prefix: str = "") -> list[str]:
        """Names of the folders in a folder."""
        import obstore

        def ask() -> list[str]:
            found = obstore.list_with_delimiter(self._store, prefix or None)["common_prefixes"]
            return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

        return self._patiently(f"{prefix}/", ask)

    def get(self, name: str) -> tuple[bytes, str] | None:
        """A small object's bytes and etag, None where it is not there."""
        import obstore

        def ask() -> tuple[bytes, str] | None:
            try:
                result = obstore.get(self._store, name)
                return bytes(result.bytes()), result.meta["e_tag"] or ""
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None

        return self._patiently(name, ask)

    def etag(self, name: str) -> str:
        """The bare etag of an object, "" where it is not there."""
        import obstore

        def ask() -> str:
            try:
                return bare(obstore.head(self._store, name)["e_tag"])
            except FileNotFoundError:
                return ""

        return self._patiently(name, ask)

    def fetch(self, name: str, into: BinaryIO, record: tuple[int, str]) -> None:
        """Write an object's bytes to a file, from its beginning.

        record: their number and `FileSum`. Raises DataError where the object is gone, or is another try after try.
        """
        for pause in (*PAUSES[:3], None):
            try:
                size, total = self._patiently(name, lambda: self._stream(name, into))
            except FileNotFoundError:
                raise DataError(self.damaged(name, "is gone")) from None
            if (size, total) == record:
                return
            if pause is not None:
                time.sleep(pause)
        what = f"has {size} bytes, not {record[0]}" if size != record[0] else "has other bytes than were written"
        raise DataError(self.damaged(name, what))

    def _stream(self, name: str, into: BinaryIO) -> tuple[int, str]:
        """Bytes and `FileSum` of what came of an object, and stands in the file now."""
        import obstore

        total, size = FileSum(), 0
        into.seek(0)
        for piece in obstore.get(self._store, name).stream(PART):
            data = bytes(piece)
            total.add(data)
            size += into.write(data)
        into.truncate()
        return size, str(total)

    def put(self, name: str, data: bytes | Path) -> str:
        """Write an object, in place of what was there, or nothing; its etag."""
        return self._put(name, data, "overwrite")

    def put_new(self, name: str, data: bytes) -> str | None:
        """Write an object that is not there; its etag. None where there is one of other bytes already."""
        from obstore.exceptions import AlreadyExistsError

        try:
            return self._put(name, data, "create")
        except AlreadyExistsError:
            return self._mine(name, data)

    def put_over(self, name: str, data: bytes, etag: str) -> str | None:
        """Write an object in place of the one of that etag; the new etag. None where it is no longer that one."""
        from obstore.exceptions import PreconditionError

        if self.scheme == "file":  # where obstore has no such put
            return self._put_over_file(name, data, etag)
        try:
            return self._put(name, data, {"e_tag": etag})
        except (PreconditionError, FileNotFoundError):
            return self._mine(name, data)

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""
        import obstore

        def ask() -> None:
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise

        self._patiently(name, ask)

    def _put(self, name: str, data: bytes | Path, mode: Any) -> str:
        import obstore

        conditional = mode != "overwrite"
        multipart: dict[str, Any] = {"use_multipart": False} if conditional else {}

        def ask() -> str:
            put = obstore.put(
                self._store, name, data, mode=mode, chunk_size=PART, max_concurrency=PARTS_AT_ONCE, **multipart
            )
            return put["e_tag"] or ""

        return self._patiently(name, ask)

    def _mine(self, name: str, data: bytes) -> str | None:
        """The etag of an object of these very bytes: a put whose answer was lost and that was tried again."""
        there = self.get(name)
        return there[1] if there is not None and there[0] == data else None

    def _put_over_file(self, name: str, data: bytes, etag: str) -> str | None:
        with open(Path(self.url.removeprefix("file://")) / ".lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            there = self.get(name)
            return self.put(name, data) if there is not None and there[1] == etag else None

    def _patiently(self, name: str, ask: Callable[[], Result]) -> Result:
        """`ask()`, again after a pause where the store fails. FileNotFoundError and failed conditions are answers."""
        from obstore.exceptions import (
            AlreadyExistsError,
            BaseError,
            InvalidPathError,
            PermissionDeniedError,
            PreconditionError,
            UnauthenticatedError,
        )

        began = time.monotonic()
        for pause in (*PAUSES, None):
            try:
                return ask()
            except (AlreadyExistsError, PreconditionError):
                raise
            except (PermissionDeniedError, UnauthenticatedError) as error:
                raise UserError(
                    f"{self.url}/{name}: access is refused ({_cause(error)}); check {self._rights}"
                ) from None
            except InvalidPathError as error:
                raise UserError(f"{self.url}/{name}: is no name for an object ({_cause(error)})") from None
            except (BaseError, FileNotFoundError) as error:
                text = str(error)
                if "NoSuchBucket" in text or "ContainerNotFound" in text:
                    raise UserError(
                        f"{self.url}: there is no such bucket; make it, or check the URL and the endpoint"
                    ) from None
                if isinstance(error, FileNotFoundError):
                    raise
                if "169.254.169.254" in text or "metadata.google.internal" in text:
                    raise UserError(f"{self.url}: no credentials were found; set {self._rights}") from None
                if pause is None:
                    raise FileSystemError(
                        f"{self.url}: {len(PAUSES) + 1} tries within {time.monotonic() - began:.0f} s failed "
                        f"({_cause(error)}); check the network and {self._rights}; once the store is well, the same "
                        "command goes on from there"
                    ) from None
                time.sleep(pause * random.uniform(0.5, 1.0))
        raise AssertionError

    def damaged(self, name: str, what: str) -> str:
        return (
            f"{self.url}/{name}: {what}; `geomim push --force` of the artifact, from a root where it is whole, mends it"
        )

    @property
    def _rights(self) -> str:
        return SCHEMES[self.scheme]


def number_set(variable: str, default: float) -> float:
    """A positive number in the environment. Raises UserError for anything else."""
    text = os.environ.get(variable) or str(default)
    try:
        if 0 < (number := float(text)) < float("inf"):
            return number
    except ValueError:
        pass
    raise UserError(f"{variable}={text}: is no positive number; set one such as {default:g}")


@lru_cache
def remote_at(url: str) -> Remote:
    """The object root at a URL; the same one for the same URL, with its connections."""
    return Remote(url)


def bare(etag: str | None) -> str:
    """An etag to compare with others: some stores put it between quotes in one answer and not in another."""
    return (etag or "").strip('"')


def url_in(text: str) -> str | None:
    """The URL of an object root in a word of the user's; None where it is no URL but a path.

    A path that was made of one has lost a slash.
    """
    match = re.match(r"([a-z][a-z0-9+]+):/+(.*)", text)
    if match is None:
        return None
    slashes = ":///" if match[1] == "file" else "://"
    return f"{match[1]}{slashes}{match[2]}"


def checked_url(url: str) -> str:
    """A URL as it is written here: without a slash at its end. Raises UserError for what is none of an object root."""
    found = url_in(url)
    scheme, _, rest = (found or "").partition("://")
    place = rest.strip("/")
    if scheme not in SCHEMES or not place or "//" in rest.rstrip("/") or any(c in url for c in "?#\n\0"):
        raise UserError(
            f"{url}: is no object root; write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or "
            "file:///FOLDER"
        )
    return f"{scheme}://{rest.rstrip('/')}"


def _cause(error: Exception) -> str:
    """The one thing that a message of obstore's, which is many lines, comes to."""
    text = str(error)
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status code: (\d+ [\w ]+)", text)
    kind = re.search(r"kind: (\w+)", text)
    if code or status:
        return " ".join(match[1] for match in (status, code) if match)
    first = text.splitlines()[0].rpartition("HTTP error: ")[2].strip() if text else type(error).__name__
    return f"{first[:160]}{f', {kind[1].lower()}' if kind else ''}"
