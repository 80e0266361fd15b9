"""The files outside the store that decide a stage's result, by name, with their digests: a part of its key."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

from common.errors import UserError
from common.files import patiently, read_regular
from storage.digests import Digests
from tasks.engine.config import PipelineConfig
from tasks.engine.dag import Node
from tasks.ingest.digests import dataroot_digests
from tasks.teacher.mmdet3d_config import config_files

EXPANSION, OCCUPANCY, LABELS = "maps/expansion", "gts", "*/*/labels.npz"


def external_digests(node: Node, config: PipelineConfig, dataroot: Path, digests: Digests) -> dict[str, str]:
    """Name or field -> SHA-256. Raises UserError where a file that the config names is not there."""
    out: dict[str, str] = {}
    if node.stage.name == "ingest":
        out = dataroot_digests(dataroot, config.version, config.ingest, digests)
    if node.stage.name in ("finetune", "evaluate"):
        out = truth_digests(config, dataroot, digests)
    for field, path in node.config.external_files().items():
        _check(node, field, path)
        out[field] = digests.of(path)
        if field == "mmdet3d":  # and all that it inherits from
            for number, base in enumerate(config_files(path)[1:], 1):
                _check(node, field, base)
                out[f"{field}, base {number}"] = digests.of(base)
    return out


def truth_digests(config: PipelineConfig, dataroot: Path, digests: Digests) -> dict[str, str]:
    """What of the dataroot beside the tables is truth to finetune's task: maps, or occupancy labels."""
    truth: dict[str, Callable[[], dict[str, str]]] = {
        "detection": dict,
        "segmentation": lambda: _maps(dataroot, config.version, digests),
        "occupancy": lambda: {OCCUPANCY: digests.of_all(dataroot / OCCUPANCY, LABELS)},
    }
    try:
        return patiently(dataroot, truth[config.finetune.task])
    except OSError as error:
        raise UserError(f"{error.filename or dataroot}: cannot be read ({error.strerror})") from None


def _maps(dataroot: Path, version: str, digests: Digests) -> dict[str, str]:
    """The map masks, and the map expansion's files."""
    names = [f"{EXPANSION}/{path.name}" for path in sorted((dataroot / EXPANSION).glob("*.json"))]
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):  # ingest says what is wrong
        names += [row["filename"] for row in json.loads(read_regular(dataroot / version / "map.json"))]
    return {name: digests.of(dataroot / name) for name in names if (dataroot / name).is_file()}


def _check(node: Node, field: str, path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{node.stage.name}.{field}: there is no file {path}")
