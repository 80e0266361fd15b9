"""`geomim diff`: two artifacts or two configs, field by field.

Nothing big is read: an artifact's manifest, its scores and the metadata of its stores.
"""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.flat import flat
from flows.config_show import resolved
from flows.inspect import store_facts
from storage.damage import Damaged
from storage.key import diff
from storage.manifest import FOR_PEOPLE, MANIFEST, RECIPE, Manifest, damages_in, grouped, read_manifest
from tasks.engine.config import PRESETS, PipelineConfig, load_config
from tasks.engine.plan import make_plan
from tasks.engine.roots import usable_root

SCORES = ("metrics.json", "gate.json")  # the files of results that a stage leaves beside its summary
READ = (*SCORES, "zarr.json")
RECORDS = ("step", "inputs")  # of what made an artifact: these are compared as its recipe and inputs

Differences = dict[str, tuple[Any, Any]]


def differences(
    a: str, b: str, dataroot: Path | None, version: str | None, root: Path
) -> tuple[bool, dict[str, Any], dict[str, Differences]]:
    """Whether the two are equal, what they are, and section -> field -> the two values.

    dataroot, version, root: for configs, as in `geomim status`. Raises UserError where they cannot be compared.
    """
    kinds = [_kind(name) for name in (a, b)]
    if kinds[0] != kinds[1]:
        names = dict(zip(kinds, (a, b)))
        raise UserError(
            f"{names['artifact']} is an artifact and {names['config']} a config: compare two artifacts or two configs"
        )
    head: dict[str, Any] = {"a": a, "b": b, "kind": kinds[0]}
    if kinds[0] == "artifact":
        sections = _of_artifacts(Path(a), Path(b))
        return not any(sections[name] for name in ("recipe", "inputs", "files")), head, sections
    configs = [load_config(_config_file(name), None, dataroot, version) for name in (a, b)]
    fields = _between(resolved(configs[0]), resolved(configs[1]))
    keys, unknown = _keys(configs, usable_root(root, to_write=False))
    return not fields, head | {"keys_unknown": unknown}, {"config": fields, "keys": keys}


def _kind(name: str) -> str:
    path = Path(name)
    if (path / MANIFEST).exists() or (path / RECIPE).exists():
        return "artifact"
    if path.is_file() or (not path.exists() and _config_file(name).is_file()):
        return "config"
    raise UserError(
        f"{name}: is no artifact's folder (it has no {MANIFEST}), no YAML file and no preset of {PRESETS.name}/"
    )


def _config_file(name: str) -> Path:
    """A config's file, or that of the preset of this name."""
    return Path(name) if Path(name).is_file() else PRESETS / f"{name}.yaml"


def _of_artifacts(a: Path, b: Path) -> dict[str, Differences]:
    one, other = _whole(a), _whole(b)
    if one.recipe.stage != other.recipe.stage:
        stages = f"{a} is of stage {one.recipe.stage} and {b} of {other.recipe.stage}"
        raise UserError(f"{stages}: nothing of them compares; name two artifacts of one stage")
    recipes = [m.recipe.model_dump(include={"version", "config", "files"}) for m in (one, other)]
    told = [{name: f"{stage}/{key[:16]}" for name, (stage, key) in m.inputs().items()} for m in (one, other)]
    named = diff(one.recipe.inputs, other.recipe.inputs)  # keys that differ in nothing that matters stand for the same
    return {
        "recipe": _between(*recipes),
        "inputs": {name: (told[0].get(name), told[1].get(name)) for name in named},
        "results": _between(_results(a, one), _results(b, other)),
        "arrays": _between(_arrays(a, one), _arrays(b, other)),
        "files": _files(one, other),
        "made": _between(_made(one), _made(other)),
    }


def _whole(path: Path) -> Manifest:
    """The manifest of an artifact of which what is read here is whole. Raises UserError."""
    try:
        manifest = read_manifest(path)
    except (Damaged, ValueError) as error:
        raise UserError(str(error)) from None
    if manifest is None:
        raise UserError(f"{path}: is unfinished; the command that began it goes on, and then there is a result")
    read = {name for name in manifest.files if Path(name).name in READ}
    damage = next((damage for damage in damages_in(path, chosen=read) if damage.matters), None)
    if damage is not None:
        raise UserError(f"{path}: is damaged ({damage}); `geomim repair {path}` mends it")
    return manifest


def _results(path: Path, manifest: Manifest) -> dict[str, Any]:
    """The summary, and of files with scores what the summary has not."""
    out = dict(manifest.summary)
    for name in SCORES:
        if name in manifest.files:
            scores = json.loads((path / name).read_bytes()) or {}  # null where there is no ground truth
            stem, known = name.removesuffix(".json"), (*manifest.summary, "crc32c")
            own = out.get(stem) or {}
            out[stem] = own | {field: value for field, value in scores.items() if field not in known}
    return out


def _arrays(path: Path, manifest: Manifest) -> dict[str, Any]:
    """Store/array -> its type, shape, chunks, codecs and bytes."""
    return {
        f"{store.name}/{name}": {field: array[field] for field in ("type", "shape", "chunk", "codecs", "bytes")}
        for store in sorted(path.glob("*.zarr"))
        if store.name in manifest.contents()  # and not a user's own
        for name, array in store_facts(store)["arrays"].items()
    }


def _files(one: Manifest, other: Manifest) -> Differences:
    """Top-level entry -> files, bytes and how many differ, of those where a file differs that is computed with."""
    names = [name for name in one.files | other.files if not any(fnmatch(Path(name).name, p) for p in FOR_PEOPLE)]
    differing = [name for name in names if one.files.get(name) != other.files.get(name)]
    entries = grouped(dict.fromkeys(differing, 0))
    told = [
        {
            entry: {"files": count, "bytes": total, "differ": entries.get(entry, (0, 0))[0]}
            for entry, (count, total) in m.contents().items()
        }
        for m in (one, other)
    ]
    return {entry: (told[0].get(entry), told[1].get(entry)) for entry in sorted(entries)}


def _made(manifest: Manifest) -> dict[str, Any]:
    made = {name: value for name, value in manifest.made.items() if name not in RECORDS}
    return {"created": manifest.created, "seconds": manifest.seconds, "bytes": manifest.bytes} | made


def _keys(configs: list[PipelineConfig], root: Path) -> tuple[Differences, str]:
    """Stage -> the two keys where they differ; or none, and why they are not known."""
    keys: list[dict[str, str]] = []
    for config in configs:
        try:
            keys.append({p.name: p.ready().artifact.key[:16] for p in make_plan(config, root)})
        except UserError as error:  # of a file or dataroot that is not there
            return {}, str(error)
    return diff(keys[0], keys[1]), ""


def _between(a: dict[str, Any], b: dict[str, Any]) -> Differences:
    """By field, those of sections that are on one side alone too."""
    return diff(dict(flat(a)), dict(flat(b)))
