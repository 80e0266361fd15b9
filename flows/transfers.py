"""What `geomim push` and `pull` do, and print."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.amounts import size
from common.errors import DataError, UserError
from common.progress import counting, say
from flows.show import console, print_json
from storage.damage import Damaged
from storage.manifest import Manifest
from storage.remote import Remote, url_in
from storage.store import StoredArtifact, stored_artifact, stored_artifacts, with_inputs
from storage.transfer import manifest_there, place_of, pull, push
from tasks.engine.roots import usable_root
from tasks.engine.stage import STAGES

LEAST_DIGITS = 4  # of a key that stands for all of it


def push_artifacts(what: str, url: str, inputs: bool, force: bool, root: Path, as_json: bool) -> None:
    """Send what is meant, what it was made from first."""
    remote = Remote(url)
    entries = _chosen(what, usable_root(root, to_write=False), inputs)
    rows = []
    for entry in entries:
        assert entry.manifest is not None  # finished, see `_chosen`
        try:
            with counting(f"push {entry.stage}", len(entry.manifest.files), "files") as done:
                there, count = push(entry.path, remote, None, force, done, lambda line: say(f"push: {line}"))
        except Damaged as error:
            raise DataError(str(error)) from None
        except ValueError as error:
            raise UserError(str(error)) from None
        rows.append(_row(there, f"{remote.url}/{place_of(entry.stage, there.key)}", count))
        _print(rows[-1], as_json)
    if as_json:
        print_json(rows)


def pull_artifacts(what: str, url: str, inputs: bool, root: Path, as_json: bool) -> None:
    """Bring what is meant, what it was made from first."""
    if url_in(str(root)) is not None:
        raise UserError(f"--root {url_in(str(root))}: name a folder of this machine to bring it to")
    remote, root = Remote(url), usable_root(root)
    rows = []
    for manifest in _there(what, remote, inputs):
        stage = manifest.recipe.stage
        with counting(f"pull {stage}", len(manifest.files), "files") as done:
            artifact, count = pull(
                remote, stage, manifest.key, root, came=done, waiting=lambda line: say(f"pull: {line}")
            )
        rows.append(_row(manifest, str(artifact.path), count))
        _print(rows[-1], as_json)
    if as_json:
        print_json(rows)


def _chosen(what: str, root: Path, inputs: bool) -> list[StoredArtifact]:
    """The finished artifacts of this machine that are meant, in the order of the stages."""
    place = Path(what).absolute()
    entry = stored_artifact(place)
    if entry is not None:
        root = place.parents[1]
    elif place.is_dir() and what not in STAGES:
        root, what = (place.parent, place.name) if place.name in STAGES else (place, "all")
    entries = stored_artifacts(root)
    if entry is not None:
        meant = [entry]
    else:
        meant = [e for e in entries if e.state == "finished" and _is_meant(what, e.stage, e.path.name)]
    if not meant or any(e.state != "finished" for e in meant):
        raise UserError(f"{what}: names no finished artifact: give its folder or key, a stage, or a root's folder")
    if inputs:
        needed = with_inputs(entries, [e.path for e in meant])
        meant = [e for e in entries if e.path in needed and e.state == "finished"]
    return sorted(meant, key=lambda e: _order(e.stage))


def _there(what: str, remote: Remote, inputs: bool) -> list[Manifest]:
    """The manifests of the artifacts of an object root that are meant, in the order of the stages."""
    found: dict[tuple[str, str], Manifest] = {}
    todo = list(_keys(what, remote))
    while todo:
        stage, key = todo.pop()
        if (stage, key[:16]) in found or (manifest := manifest_there(remote, stage, key)) is None:
            continue
        found[stage, key[:16]] = manifest
        todo += manifest.inputs().values() if inputs else []
    if not found:
        raise UserError(f"{remote.url}: has no finished artifact {what}; name a key, a stage, or all")
    return sorted(found.values(), key=lambda manifest: _order(manifest.recipe.stage))


def _keys(what: str, remote: Remote) -> Iterator[tuple[str, str]]:
    for stage in remote.folders():
        yield from ((stage, key) for key in remote.folders(stage) if key[0] != "." and _is_meant(what, stage, key))


def _is_meant(what: str, stage: str, key: str) -> bool:
    """key: its first 16 digits."""
    name = what.removeprefix(f"{stage}/")[:16]
    return what in ("all", stage) or (len(name) >= LEAST_DIGITS and key.startswith(name))


def _order(stage: str) -> int:
    return list(STAGES).index(stage) if stage in STAGES else len(STAGES)


def _row(manifest: Manifest, place: str, count: int) -> dict[str, Any]:
    return {"path": place, "stage": manifest.recipe.stage, "key": manifest.key, "bytes": manifest.bytes, "moved": count}


def _print(row: dict[str, Any], as_json: bool) -> None:
    if not as_json:
        console().print(f"{size(row['moved']) if row['moved'] else 'is there':>9}  {row['path']}", soft_wrap=True)
