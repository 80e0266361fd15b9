"""What one types for the report of a run: of the words that began it, or of its config alone, as Prefect has it."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.flat import flat
from flows.config_show import changed_from, resolved, yaml_line
from flows.options import DEFAULT_ROOT
from tasks.engine.config import PRESETS, PipelineConfig, load_config
from tasks.engine.roots import written

MOST_SETTINGS = 12  # that are written out: of more, one keeps a file


def config_options(
    file: Path | None, overrides: Sequence[str] | None, root: Path, dataroot: Path | None, version: str | None
) -> list[str]:
    """The words that give a command the same config and root again."""
    at = written(root) if root != DEFAULT_ROOT else None
    given = {"--config": file, "--root": at, "--dataroot": dataroot, "--version": version}
    words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    return words + [word for override in overrides or [] for word in ("--set", override)]


def report_command(options: Sequence[str]) -> str:
    return shlex.join(["geomim", "report", *options, "--open"])


def report_of(config: PipelineConfig, root: Path) -> str:
    """The same for a run of which the config alone is known: the preset that is nearest to it, and what differs.

    CONFIG stands for a file with the run's parameter `config` where that is too much, or cannot be said so.
    """
    distances: dict[Path, list[str]] = {}
    for preset in sorted(PRESETS.glob("*.yaml")):
        changed = flat(changed_from(load_config(preset), config))
        distances[preset] = [f"{name}={yaml_line(value)}" for name, value in changed]
    file = min(distances, key=lambda preset: len(distances[preset]))
    settings = distances[file]
    if len(settings) > MOST_SETTINGS or not _give(config, file, settings):
        return report_command(["--config", "CONFIG", "--root", str(root)])
    return report_command(config_options(Path(os.path.relpath(file)), settings, root, None, None))


def _give(config: PipelineConfig, file: Path, settings: list[str]) -> bool:
    try:
        return resolved(load_config(file, settings)) == resolved(config)
    except UserError:  # a name with a dot in it, say: a category of `ingest.classes`
        return False
