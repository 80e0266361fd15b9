"""`geomim inspect`: what an artifact is, what made it and what it holds, read from JSON alone (no zarr, no torch)."""

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from common.errors import DataError, UserError
from flows.show import console, size
from storage.artifact import RECIPE, Artifact
from storage.damage import Damaged
from storage.manifest import MANIFEST, Recipe, contents, damages_in, files, read_manifest
from storage.parts import count_done


def describe(path: Path) -> dict[str, Any]:
    """An artifact's folder, or one Zarr store, as JSON. Raises UserError where there is neither or it does not read."""
    path = path.resolve()
    if (path / "zarr.json").is_file():
        return {"path": str(path), "store": _store(path)}
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder; `geomim status` prints where artifacts are")
    if not (path / MANIFEST).exists() and not (path / RECIPE).exists():
        raise UserError(f"{path}: is no artifact (it has no {MANIFEST}); name a folder such as artifacts/depth/0123...")
    try:
        manifest = read_manifest(path)
    except (Damaged, ValueError) as error:
        raise UserError(str(error)) from None
    description: dict[str, Any] = {"path": str(path)}
    if manifest is None:
        progress = Artifact(path.parent.parent, path.parent.name, path.name).progress()
        description |= {"stage": path.parent.name, "state": "unfinished", "done": progress} | _recipe(path / RECIPE)
    else:
        damages = [str(damage) for damage in damages_in(path)]
        description |= {
            "stage": manifest.recipe.stage,
            "state": "damaged" if damages else "whole",
            "damages": damages,
            "extras": sorted(set(files(path)) - manifest.files.keys()),
            "key": manifest.key,
            "created": manifest.created,
            "seconds": manifest.seconds,
            "bytes": manifest.bytes,
            "made": {name: value for name, value in manifest.made.items() if name != "step"},
            "inputs": {name: f"{stage}/{key[:16]}" for name, (stage, key) in manifest.inputs().items()},
            "files": manifest.recipe.files,
            "config": manifest.recipe.config,
            "summary": manifest.summary,
        }
    description["contents"] = {n: {"files": f, "bytes": b} for n, (f, b) in contents(path).items()}
    description["stores"] = {store.name: _store(store) for store in sorted(path.glob("*.zarr"))}
    return description


def show_description(description: dict[str, Any]) -> None:
    """The same for people."""
    out = console()
    out.print(f"[bold]{description.get('stage', 'store')}[/]  {description['path']}", soft_wrap=True)
    for name in ("state", "done", "key", "created", "seconds", "bytes"):
        if description.get(name) is not None:
            value = size(description[name]) if name == "bytes" else description[name]
            out.print(f"  {name:8} {value}")
    for name in description.get("damages", []):
        out.print(f"  [red]damaged[/]  {name}", soft_wrap=True)
    for name in description.get("extras", []):
        out.print(f"  [yellow]not ours[/] {name}", soft_wrap=True)
    for section in ("made", "inputs", "config", "summary"):
        if description.get(section):
            out.print(f"[bold]{section}[/]")
            for name, value in _flat(description[section]):
                out.print(f"  {name:36} {value}", soft_wrap=True, markup=False)
    for name, entry in description.get("contents", {}).items():
        out.print(f"  {name:36} {entry['files']} files, {size(entry['bytes'])}")
    stores = description.get("stores") or ({"": description["store"]} if "store" in description else {})
    for name, store in stores.items():
        out.print(f"[bold]{name}[/]  {store.get('parts') or ''}")
        table = Table(box=None, pad_edge=False)
        for column in ("array", "type", "shape", "dimensions", "chunk"):
            table.add_column(column)
        for array, facts in store["arrays"].items():
            shape = " x ".join(map(str, facts["shape"]))
            chunk = " x ".join(map(str, facts["chunk"]))
            table.add_row(f"  {array}", facts["type"], shape, ", ".join(facts["dimensions"]), chunk)
        out.print(table)


def _recipe(file: Path) -> dict[str, Any]:
    """The config of unfinished work."""
    try:
        return {"config": Recipe.model_validate_json(file.read_bytes()).config}
    except ValueError:
        return {"damages": [f"{file.name} is not what was written"]}


def _store(path: Path) -> dict[str, Any]:
    try:
        return _metadata(path)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(str(Damaged(path, f"its zarr.json files are not what was written ({error!r})"))) from None


def _metadata(path: Path) -> dict[str, Any]:
    group = json.loads((path / "zarr.json").read_text())
    nodes = sorted(p for p in path.glob("*/zarr.json")) if group["node_type"] == "group" else [path / "zarr.json"]
    arrays = {}
    for node in nodes:
        meta = json.loads(node.read_text())
        if meta["node_type"] != "array":
            continue
        inner = [c["configuration"]["chunk_shape"] for c in meta["codecs"] if c["name"] == "sharding_indexed"]
        arrays[node.parent.name] = {
            "type": meta["data_type"] if isinstance(meta["data_type"], str) else meta["data_type"].get("name"),
            "shape": meta["shape"],
            "dimensions": meta.get("dimension_names") or [],
            "chunk": inner[0] if inner else meta["chunk_grid"]["configuration"]["chunk_shape"],
        }
    done = count_done(path)
    return {
        "attributes": {n: v for n, v in group.get("attributes", {}).items() if len(json.dumps(v)) < 2000},
        "arrays": arrays,
        "parts": f"{done[0]} of {done[1]} parts done" if done else None,
    }


def _flat(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(values, dict):
        return [(prefix, values)]
    return [pair for name, value in values.items() for pair in _flat(value, f"{prefix}.{name}" if prefix else name)]
