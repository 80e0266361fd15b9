"""nuScenes' 13 tables to be written: as lists of records, and the tokens in them.

Tokens are hashes of stable names, so that the same source gives the same bytes.
"""

import hashlib
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from dataroot.cameras import CAMERA
from dataroot.names import TABLES
from models.geometry import rotation_to_quaternion
from models.names import ATTRIBUTES, CATEGORY_TO_CLASS, LIDAR

VISIBILITIES = {"1": "v0-40", "2": "v40-60", "3": "v60-80", "4": "v80-100"}

DECIMALS = 9

Records = dict[str, list[dict]]


def token(*names: object) -> str:
    """32 hex digits that stand for these names."""
    return hashlib.sha256("/".join(map(str, names)).encode()).hexdigest()[:32]


def common_tables(cameras: Iterable[str], more_categories: Iterable[str] = ()) -> Records:
    """The tables that do not depend on the scenes. more_categories: besides nuScenes' that are of a class."""
    return {
        "attribute": [{"token": token("attribute", a), "name": a, "description": ""} for a in ATTRIBUTES],
        "category": [
            {"token": token("category", c), "name": c, "description": "", "index": i}
            for i, c in enumerate((*CATEGORY_TO_CLASS, *more_categories), 1)
        ],
        "sensor": [
            {"token": token("sensor", c), "channel": c, "modality": "lidar" if c == LIDAR else CAMERA}
            for c in (LIDAR, *cameras)
        ],
        "visibility": [
            {"token": t, "level": level, "description": f"share of the object's pixels in view: {level[1:]} %"}
            for t, level in VISIBILITIES.items()
        ],
    }


def visibility_token(share: float) -> str:
    """The bin of a visible share 0..1."""
    return "1" if share <= 0.4 else "2" if share <= 0.6 else "3" if share <= 0.8 else "4"


def pose_fields(to_parent: np.ndarray) -> dict:
    """`translation` and `rotation` (wxyz) of a transform (4, 4)."""
    return {
        "translation": to_parent[:3, 3].tolist(),
        "rotation": rotation_to_quaternion(to_parent[:3, :3]).tolist(),
    }


def chain(records: list[dict]) -> list[dict]:
    """Links records by `prev` and `next` in their order."""
    for before, after in pairwise(records):
        before["next"], after["prev"] = after["token"], before["token"]
    return records


def merge(parts: list[Records]) -> Records:
    """All parts' records, table by table, in the parts' order."""
    return {name: [record for part in parts for record in part.get(name, [])] for name in TABLES}


def write_tables(tables: Records, folder: Path) -> None:
    """Writes the 13 tables, numbers to a nanometre: beyond that they are a machine's own, and so would the keys be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        (folder / f"{name}.json").write_text(json.dumps(_rounded(tables[name]), indent=0, allow_nan=False) + "\n")


def record_in(file: Path) -> dict[str, Any]:
    """What stands beside a data set that geomim wrote and says how; {} where nothing that reads does."""
    try:
        record = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def says(record: dict[str, Any], how: dict[str, Any]) -> bool:
    """Whether a record is of a data set that was written so."""
    return all(record.get(name) == value for name, value in how.items())


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DECIMALS) + 0.0  # no -0.0, whose sign is chance
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value
