"""`geomim config show`: a config's resolved values as YAML, each with where it came from."""

from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from rich.text import Text

from flows.show import console, print_json
from tasks.engine.config import SHARED, PipelineConfig, layers, load_config, merged, preset_layers

DEFAULT = "default"
COMMENTS_AT = 44  # the column where comments begin, but for longer lines


@dataclass(frozen=True)
class Said:
    """A given value, and where it was given. Equal values are equal, so that `merged` lays these like the bare ones."""

    value: Any
    source: str = field(compare=False)


def show_config(
    file: Path | None, overrides: list[str] | None, dataroot: Path | None, version: str | None, changed: bool, js: bool
) -> None:
    """Print the resolved config; changed: only what differs from the defaults. Raises UserError as `load_config`."""
    config = load_config(file, overrides, dataroot, version)
    said = _said(config.preset, layers(file, overrides, dataroot, version))
    values = changed_from(PipelineConfig(), config) if changed else resolved(config)
    if js:
        print_json({"config": values, "from": {".".join(path): _source(said, path, v) for path, v in _leaves(values)}})
        return
    out = console()
    for line, comment in _lines(values, said):
        out.print(Text(line).append(comment, "dim"), soft_wrap=True)


def resolved(config: PipelineConfig) -> dict[str, Any]:
    """All values as JSON, which load as the same config: without the preset, which is in them, and with the sections
    that stages share at the top alone."""
    return _own(config.model_dump(mode="json"))


def _own(values: dict[str, Any]) -> dict[str, Any]:
    shared = {stage: name for name, stages in SHARED.items() for stage in stages}
    return {
        section: {name: v for name, v in value.items() if name != shared.get(section)} if section in shared else value
        for section, value in values.items()
        if section != "preset"
    }


def changed_from(default: PipelineConfig, config: PipelineConfig) -> dict[str, Any]:
    """The values that differ, as JSON; laid over the default they are the config again."""
    values = _own(_differing(config, default))  # of which nothing may be left: what differs stands at the top
    return {name: value for name, value in values.items() if value != {} or getattr(default, name) is None}


def _differing(config: BaseModel, default: Any) -> dict[str, Any]:
    """The fields that differ from the defaults: those of its own kind, where the default is of another kind."""
    own = default if type(default) is type(config) else type(config)()
    dumped = config.model_dump(mode="json")
    out = {}
    for name, value in config:
        usual = getattr(own, name)
        of_another_kind = name == "name" and value != getattr(default, "name", value)
        if isinstance(value, BaseModel) and value != usual:
            out[name] = _differing(value, usual)
        elif value != usual or of_another_kind:
            out[name] = dumped[name]
    return out


def _said(preset: str | None, given: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every given value with its source, laid over each other as the values are."""
    presets = {f"preset {name}": values for name, values in preset_layers(preset).items()} if preset else {}
    return merged(_laid(presets), _laid(given))


def _laid(sources: dict[str, dict[str, Any]]) -> dict[str, Any]:
    marked: list[dict[str, Any]] = [_marked(values, source) for source, values in sources.items()]
    return reduce(merged, marked, {})


def _marked(values: dict[str, Any], source: str) -> dict[str, Any]:
    return {
        name: _marked(value, source) if isinstance(value, dict) else Said(value, source)
        for name, value in values.items()
    }


def _source(said: dict[str, Any], path: tuple[str, ...], value: Any) -> str:
    """Where a value came from."""
    place: Any = said
    for name in path:
        if isinstance(place, Said):  # a section that was given by its name alone, such as `method: pixels`
            return place.source if place.value == value else DEFAULT
        place = place.get(name)
        if place is None:
            return DEFAULT
    return place.source if isinstance(place, Said) else DEFAULT


def _leaves(values: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    out = []
    for name, value in values.items():
        nested = isinstance(value, dict) and value
        out += _leaves(value, (*path, name)) if nested else [((*path, name), value)]
    return out


def _lines(values: dict[str, Any], said: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """(YAML, comment) of each line."""
    out = []
    for name, value in values.items():
        head, below = f"{'  ' * len(path)}{yaml_line(name)}:", (*path, name)
        if isinstance(value, dict) and value:
            out += [(head, ""), *_lines(value, said, below)]
        else:
            out.append((f"{head} {yaml_line(value)}".ljust(COMMENTS_AT), f"  # {_source(said, below, value)}"))
    return out


def yaml_line(value: Any) -> str:
    """A value in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"), sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
