"""`geomim inspect`: what an artifact is, what made it, what it holds and whether its numbers look sound.

All but the last is read from JSON alone; for that a few samples are read.
"""

import json
from math import prod
from pathlib import Path
from typing import Any

from rich.table import Table

from common.amounts import size
from common.errors import DataError, UserError
from common.flat import flat
from flows.show import console
from storage.artifact import RECIPE, Artifact
from storage.damage import Damaged
from storage.manifest import MANIFEST, Recipe, contents, damages_in, files, read_manifest
from storage.parts import count_done

NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
ITEM_BYTES = {"bool": 1} | {name: int(name.lstrip("uintfloa")) // 8 for name in NUMBERS}
WORTH_A_SHARE = 100_000  # bytes, from where on a compression is told


def describe(path: Path) -> dict[str, Any]:
    """An artifact's folder, one Zarr store or a dataroot, as JSON. Raises UserError where there is none of them."""
    path = path.resolve()
    if versions := sorted(table.parent.name for table in path.glob("*/sample.json")):
        return {"path": str(path), "stage": "dataroot", "versions": {name: _rows(path / name) for name in versions}}
    if (path / "zarr.json").is_file():
        return {"path": str(path), "store": store_facts(path)}
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder; `geomim status` prints where artifacts are")
    if not (path / MANIFEST).exists() and not (path / RECIPE).exists():
        raise UserError(
            f"{path}: is no artifact (it has no {MANIFEST}) and no dataroot (VERSION/sample.json); name a folder such "
            "as artifacts/depth/0123..."
        )
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
    description["stores"] = {store.name: store_facts(store) for store in sorted(path.glob("*.zarr"))}
    if manifest is not None:
        from gallery.health import health

        description["health"] = health(path)
    return description


def show_description(description: dict[str, Any]) -> None:
    """The same for people."""
    from gallery.health import ODD

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
            for name, value in flat(description[section]):
                out.print(f"  {name:36} {value}", soft_wrap=True, markup=False)
    for name, entry in description.get("contents", {}).items():
        out.print(f"  {name:36} {entry['files']} files, {size(entry['bytes'])}")
    stores = description.get("stores") or ({"": description["store"]} if "store" in description else {})
    for name, store in stores.items():
        out.print(f"[bold]{name}[/]  {store.get('parts') or ''}")
        table = Table(box=None, pad_edge=False)
        for column in ("array", "type", "shape", "dimensions", "chunk", "codecs", "size", "of raw"):
            table.add_column(column)
        for array, facts in store["arrays"].items():
            shape = " x ".join(map(str, facts["shape"]))
            chunk = " x ".join(map(str, facts["chunk"]))
            share = f"{facts['bytes'] / facts['raw_bytes']:.1%}" if facts["raw_bytes"] > WORTH_A_SHARE else ""
            row = facts["type"], shape, ", ".join(facts["dimensions"]), chunk, ", ".join(facts["codecs"])
            table.add_row(f"  {array}", *row, size(facts["bytes"]), share)
        out.print(table)
    for version, rows in description.get("versions", {}).items():
        out.print(f"[bold]{version}[/]")
        for name, count in rows.items():
            out.print(f"  {name:36} {count}")
    for name, facts in description.get("health", {}).items():
        out.print(f"[bold]{name}[/]  [red]looks wrong[/]" if ODD in facts else f"[bold]{name}[/]  looks sound")
        for fact, value in flat(facts):
            out.print(f"  {fact:36} {value}", soft_wrap=True, markup=False)


def _recipe(file: Path) -> dict[str, Any]:
    """The config of unfinished work."""
    try:
        return {"config": Recipe.model_validate_json(file.read_bytes()).config}
    except ValueError:
        return {"damages": [f"{file.name} is not what was written"]}


def store_facts(path: Path) -> dict[str, Any]:
    """Attributes, arrays and parts of a Zarr store, by its JSON alone. Raises DataError."""
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
        shards = [codec["configuration"] for codec in meta["codecs"] if codec["name"] == "sharding_indexed"]
        inner = [shard["chunk_shape"] for shard in shards]
        codecs = [codec["name"] for codec in (shards[0]["codecs"] if shards else meta["codecs"])]
        kind = meta["data_type"] if isinstance(meta["data_type"], str) else meta["data_type"].get("name")
        arrays[node.parent.name] = {
            "type": kind,
            "shape": meta["shape"],
            "dimensions": meta.get("dimension_names") or [],
            "chunk": inner[0] if inner else meta["chunk_grid"]["configuration"]["chunk_shape"],
            "codecs": [name for name in codecs if name != "bytes"],
            "bytes": sum(b for _, b in contents(node.parent).values()),
            "raw_bytes": prod(meta["shape"]) * ITEM_BYTES.get(kind, 0),  # with the slots that no sample fills
        }
    done = count_done(path)
    return {
        "attributes": {n: v for n, v in group.get("attributes", {}).items() if len(json.dumps(v)) < 2000},
        "arrays": arrays,
        "parts": f"{done[0]} of {done[1]} parts done" if done else None,
    }


def _rows(folder: Path) -> dict[str, str]:
    """Table -> its size, of a dataroot's version."""
    return {table.stem: size(table.stat().st_size) for table in sorted(folder.glob("*.json"))}


def show_facts(facts: dict[str, Any]) -> None:
    """What is known of a sample, for people."""
    out = console()
    for name, value in facts.items():
        told = ", ".join(f"{key} {count}" for key, count in value.items()) or "-" if isinstance(value, dict) else value
        out.print(f"  {name.replace('_', ' '):14} {told}", soft_wrap=True, markup=False)
