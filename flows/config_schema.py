"""`geomim config schema`: what an editor needs to complete, explain and check a config while it is written."""

from collections.abc import Iterator
from typing import Any

from tasks.engine.config import PRESETS, SHARED, PipelineConfig
from tasks.pretrain.methods import CONFIGS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
RUNTIME = "It changes how a stage runs, not what comes out: no key depends on it."


def config_schema() -> dict[str, Any]:
    """The JSON schema of what may stand in a config's file, which may be a part of a config."""
    schema = PipelineConfig.model_json_schema()
    for place in schema["properties"].values():  # of the data and of other values, which may well decide a key
        place.pop("runtime", None)
    for node in _nodes(schema):
        if node.pop("runtime", False):
            node["description"] = f"{node.get('description', '')} {RUNTIME}".strip()
        node.pop("external_file", None)
        if node.pop("discriminator", None):
            # A part need not have the name: a file's `embed_dim: 96` alone may belong to its preset's section.
            node["anyOf"] = node.pop("oneOf")
    sections, top = schema["$defs"], schema["properties"]
    for shared, stages in SHARED.items():
        for stage in stages:  # which take it from the top
            del sections[top[stage]["$ref"].rpartition("/")[2]]["properties"][shared]
    method = sections["PretrainConfig"]["properties"]["method"]
    method["anyOf"].append({"enum": sorted(CONFIGS), "description": "The method by its name alone."})
    top["preset"]["examples"] = sorted(
        path.relative_to(PRESETS).with_suffix("").as_posix() for path in PRESETS.rglob("*.yaml")
    )
    return {"$schema": DIALECT} | schema | {"title": "A config of geomim"}


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of a schema."""
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _nodes(child)
    if isinstance(value, dict):
        yield value
