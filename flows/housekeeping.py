"""What the commands about stored artifacts do, and print."""

import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from common.amounts import size
from common.errors import DataError, UserError
from common.progress import counting, say
from flows.experiment.artifact import EXPERIMENT
from flows.experiment.plan import runs
from flows.show import console, print_json
from storage.copy import copy_artifact
from storage.damage import Damaged
from storage.lock import Busy, holder, locked
from storage.manifest import FileDamage, Manifest
from storage.store import (
    StoredArtifact,
    check,
    leftovers,
    named_in,
    newer_than,
    read_pin,
    stored_artifact,
    stored_artifacts,
    with_inputs,
    write_pin,
)
from tasks.engine.config import load_config
from tasks.engine.plan import make_plan
from tasks.engine.repair import repair
from tasks.engine.roots import usable_root
from tasks.engine.stage import STAGES


def chosen(root: Path, what: Iterable[str]) -> list[StoredArtifact]:
    """The artifacts that are meant: folders, stages of the root, or all of it. Raises UserError for anything else."""
    root = usable_root(root, to_write=False)
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; name the artifacts' with --root")
    entries, what = stored_artifacts(root), list(what)
    if not what:
        return entries
    out = []
    for name in what:
        if name in STAGES or (name.isidentifier() and (root / name).is_dir()):
            out += [entry for entry in entries if entry.stage == name]
        elif (entry := stored_artifact(Path(name).absolute())) is not None:
            out.append(entry)
        else:
            raise UserError(f"{name}: is neither a stage nor an artifact's folder; `geomim du` lists them")
    return out


def verify_artifacts(root: Path, what: list[str], sample: int | None, as_json: bool) -> None:
    """Check each and print a line. Raises DataError where something is damaged."""
    rows: list[dict[str, Any]] = []
    out = console()
    for entry in chosen(root, what):
        damages = _checked(entry, sample)
        state = "damaged" if damages else {"finished": "whole"}.get(entry.state, entry.state)
        rows.append(
            {
                "path": str(entry.path),
                "stage": entry.stage,
                "state": state,
                "bytes": entry.bytes,
                "damages": [{"file": d.name, "what": d.what, "matters": d.matters} for d in damages],
            }
        )
        if not as_json:
            colour = {"whole": "green", "damaged": "red"}.get(state, "yellow")
            out.print(f"[{colour}]{state:10}[/] {size(entry.bytes):>9}  {entry.path}", soft_wrap=True)
            for damage in damages:
                out.print(f"           {damage}", soft_wrap=True, markup=False)
    if as_json:
        print_json(rows)
    bad = [row["path"] for row in rows if row["state"] == "damaged"]
    if bad:
        raise DataError(f"{len(bad)} of {len(rows)} artifacts are damaged: `geomim repair {' '.join(bad[:3])}`")


def _checked(entry: StoredArtifact, sample: int | None) -> list[FileDamage]:
    with counting(f"verify {entry.stage}", _count(entry), "files") as checked:
        return check(entry.path, sample, checked)


def _count(entry: StoredArtifact) -> int:
    return len(entry.manifest.files) if entry.manifest else 0


def repair_artifacts(root: Path, what: list[str], dataroot: Path | None) -> None:
    """Mend each that is damaged, those first from which others are made."""
    order = {name: number for number, name in enumerate(STAGES)}
    for entry in sorted(chosen(root, what), key=lambda entry: order.get(entry.stage, len(order))):
        if entry.state == "finished" or what:
            damages = repair(entry.path, dataroot)
            done = f"{len(damages)} damaged files, mended" if damages else "is whole"
            console().print(f"{entry.path}: {done}", soft_wrap=True)


def show_sizes(root: Path, as_json: bool) -> None:
    """A line an artifact, the biggest stage first; and what else there is."""
    root = usable_root(root, to_write=False)
    entries = stored_artifacts(root)
    needed: dict[Path, int] = {}
    for entry in entries:
        for path in entry.inputs():
            needed[path] = needed.get(path, 0) + 1
    rows: list[dict[str, Any]] = [
        {
            "path": str(entry.path),
            "stage": entry.stage,
            "state": entry.state,
            "bytes": entry.bytes,
            "changed": time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.changed)),
            "needed_by": needed.get(entry.path, 0),
            "pin": read_pin(entry.path),
        }
        for entry in entries
    ]
    rest = {str(path): _size(path) for path in leftovers(root)} if root.is_dir() else {}
    if as_json:
        print_json({"artifacts": rows, "leftovers": rest, "bytes": sum(r["bytes"] for r in rows)})
        return
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "size", "state", "changed", "needed by", "pinned", "folder"):
        table.add_column(column, overflow="fold")
    for row in sorted(rows, key=lambda row: -row["bytes"]):
        pinned = "" if row["pin"] is None else row["pin"] or "yes"
        cells = (row["stage"], size(row["bytes"]), row["state"], row["changed"], str(row["needed_by"]), pinned)
        table.add_row(*cells, Path(row["path"]).name)
    console().print(table)
    line = f"{size(sum(row['bytes'] for row in rows))} in {len(rows)} artifacts"
    if rest:
        line += f"; {size(sum(rest.values()))} left behind by runs that were killed (`geomim gc`)"
    console().print(line)


def collect_garbage(
    root: Path,
    configs: list[Path],
    days: float,
    delete: bool,
    dataroot: Path | None,
    version: str | None,
    as_json: bool,
) -> None:
    """Print, and with `delete` remove, what is not needed."""
    root, since = usable_root(root, to_write=delete), time.time()
    unneeded = [(path, "left by a killed run") for path in leftovers(root)] if root.is_dir() else []
    if configs:
        unneeded += [(e.path, e.state) for e in not_needed(root, configs, days, dataroot, version)]
    sizes = {path: _size(path) for path, _ in unneeded}
    in_use: dict[Path, str] = {}
    if delete:
        for path, _ in unneeded:
            if (why := _delete(path, since)) is not None:
                in_use[path] = why
    if as_json:
        print_json(
            [
                {"path": str(path), "why": why, "bytes": sizes[path], "deleted": delete and path not in in_use}
                for path, why in unneeded
            ]
        )
        return
    for path, why in unneeded:
        note = f"  stays: {in_use[path]}" if path in in_use else ""
        console().print(f"{size(sizes[path]):>9}  {why:20} {path}{note}", soft_wrap=True)
    total = sum(count for path, count in sizes.items() if path not in in_use)
    done = "deleted" if delete else "would go; add --delete to remove it"
    line = f"{size(total)} in {len(unneeded) - len(in_use)} places {done}" if unneeded else "nothing to remove"
    console().print(line)
    if not configs:
        console().print("finished artifacts are looked at where a --config says which are still needed")


def not_needed(
    root: Path, configs: list[Path], days: float, dataroot: Path | None, version: str | None
) -> Iterator[StoredArtifact]:
    """The artifacts that no config, no pin and no newer artifact needs.

    What nobody can read (another geomim's, perhaps) is not among them: a run that wants its place moves it aside.
    """
    entries = stored_artifacts(root)
    keep = [entry.path for entry in entries if entry.pinned] + newer_than(entries, days)
    for file in configs:
        config = load_config(file, None, dataroot, version)
        plan = make_plan(config, root)
        try:
            steps = [planned.ready() for planned in plan]
        except UserError as error:
            raise UserError(f"{file}: {error}; without it nobody knows which artifacts are its own") from None
        if "experiment" in config.model_fields_set:
            steps += [step for run in runs(config) for step in run.steps(root).values()]
        keep += [step.artifact.path for step in steps]
        keep += [needed.path for step in steps for needed in step.inputs.artifacts.values()]
        keep += named_in(config.model_dump(mode="json"), root)
        keys = {step.artifact.key for step in steps}
        keep += [e.path for e in entries if e.stage == EXPERIMENT and e.manifest and keys >= _read(e.manifest)]
    needed = with_inputs(entries, keep)
    return (entry for entry in entries if entry.path not in needed and entry.state != "unreadable")


def _read(manifest: Manifest) -> set[str]:
    """The keys of what an artifact was made from."""
    return {key for _, key in manifest.inputs().values()}


def pin_artifact(root: Path, artifact: Path | None, note: str, remove: bool) -> None:
    """Pin, unpin, or print all pins."""
    if artifact is None:
        for entry in stored_artifacts(usable_root(root, to_write=False)):
            if (reason := read_pin(entry.path)) is not None:
                console().print(f"{entry.path}  {reason}", soft_wrap=True)
        return
    if stored_artifact(artifact.absolute()) is None:
        raise UserError(f"{artifact}: is no artifact's folder; `geomim du` lists them")
    if remove:
        (artifact / ".pin").unlink(missing_ok=True)
    else:
        write_pin(artifact, note)


def copy_artifacts(source: Path, target: Path, inputs: bool) -> None:
    """Copy what `source` holds, and print a line for each."""
    target = usable_root(target)
    source = source.absolute()
    entry = stored_artifact(source)
    entries = (
        [entry]
        if entry
        else [e for e in stored_artifacts(source) + stored_artifacts(source.parent) if source in e.path.parents]
    )
    if inputs and entry:
        needed = with_inputs(stored_artifacts(source.parent.parent), [source])
        entries = [e for e in stored_artifacts(source.parent.parent) if e.path in needed]
    entries = [e for e in entries if e.state == "finished" or e is entry]
    if not entries:
        raise UserError(f"{source}: holds no finished artifact; name an artifact's folder, a stage's, or a root")
    for e in entries:
        try:
            with counting(f"cp {e.stage}", _count(e), "files") as done:
                copied, count = copy_artifact(e.path, target, done, lambda line: say(f"cp: {line}"))
        except Damaged as error:
            raise DataError(str(error)) from None
        except ValueError as error:
            raise UserError(str(error)) from None
        console().print(f"{size(count) if count else 'is there':>9}  {copied.path}", soft_wrap=True)


def _delete(path: Path, since: float) -> str | None:
    """Remove a folder or file; why not, where it stays. since: something that changed after that is in use."""
    folder = path
    for prefix, ending in ((".copy-", ""), (".", ".lock")):
        if path.name.startswith(prefix) and path.name.endswith(ending) and not path.name.startswith(".trash-"):
            folder = path.with_name(path.name.removeprefix(prefix).removesuffix(ending))
            break
    try:
        with locked(folder, "geomim gc", patient=False):  # who lets go of a lock removes its file
            entry = stored_artifact(path)
            if entry is not None and entry.changed > since:
                return "it has changed meanwhile"
            if path.is_dir():
                trash = path if path.name.startswith(".trash-") else path.with_name(f".trash-{path.name}")
                path.rename(trash)
                shutil.rmtree(trash, ignore_errors=True)
                return "not all of it can be removed" if trash.exists() else None
            if not path.name.endswith(".lock"):
                path.unlink(missing_ok=True)
    except Busy:
        return f"{holder(folder) or 'another process'} has it"
    return None


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.lstat().st_size for p in files)
