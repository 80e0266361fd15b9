"""A results file as people have it, read sample by sample into flat arrays, with one clear sentence for what is wrong.

A file for the whole of nuScenes has hundreds of megabytes: parsed as a whole it would be gigabytes of Python objects.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.names import ATTRIBUTES, CLASSES
from tasks.errors import UserError
from tasks.evaluation.flat import FlatBoxes
from tasks.evaluation.submission import MAX_BOXES

VECTORS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}
SENSORS = ("use_camera", "use_lidar", "use_radar", "use_map", "use_external")
SHAPE = '{"meta": {"use_camera": true, ...}, "results": {SAMPLE_TOKEN: [boxes]}}'
_decode = json.JSONDecoder().raw_decode
_BLANK = " \t\r\n"


class Results(NamedTuple):
    meta: dict
    tokens: list[str]  # of the samples, in the file's order
    boxes: FlatBoxes  # `sample` is a place in `tokens`


def read_results(path: Path) -> Results:
    """Read and check a results file. Raises UserError with the first thing that is wrong and where."""
    text = _text(path)
    meta: dict[str, Any] = {}
    parts: dict[str, FlatBoxes] = {}
    seen: list[str] = []

    def sample(token: str, at: int) -> int:
        records, end = _decode(text, at)
        if token in parts:
            raise UserError(f"{path}: sample {token} stands there twice; keep one list of boxes a sample")
        parts[token] = _boxes(path, token, len(parts), records)
        return end

    def field(name: str, at: int) -> int:
        seen.append(name)
        if name == "results" and text[at : at + 1] == "{":
            return _members(text, at, sample)
        value, end = _decode(text, at)
        if name in ("results", "meta") and not isinstance(value, dict):
            raise UserError(f"{path}: `{name}` is {_kind(value)}, not an object; a results file is {SHAPE}")
        meta.update(value if name == "meta" else {})
        return end

    try:
        at = _skip(text, 0)
        if text[at : at + 1] != "{":
            raise UserError(f"{path}: holds {_kind(_decode(text, at)[0])}, not an object; a results file is {SHAPE}")
        end = _skip(text, _members(text, at, field))
        if end < len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); write it again, it may have been cut off") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply; a results file is {SHAPE}") from None
    for name in ("results", "meta"):
        if name not in seen:
            raise UserError(f"{path}: has no field `{name}`; a results file is {SHAPE}")
    return Results(meta, list(parts), FlatBoxes.joined(parts.values()))


def split_of(path: Path, results: Results, splits: dict[str, list[str]], version: str) -> str:
    """The devkit's name of the split whose samples the file holds, all of them and no others.

    `splits` as from `tasks.evaluation.dataroot.split_samples`. Raises UserError.
    """
    home = {token: name for name, tokens in splits.items() for token in tokens}
    if not results.tokens:
        raise UserError(f"{path}: holds no sample; a sample without boxes has an empty list")
    foreign = [token for token in results.tokens if token not in home]
    if foreign:
        raise UserError(
            f"{path}: {len(foreign)} of its {len(results.tokens)} samples are not in {version} ({_some(foreign)}); is "
            "it of another version of the dataset, or another split?"
        )
    names = sorted({home[token] for token in results.tokens})
    if "" in names:
        lost = [token for token in results.tokens if not home[token]]
        raise UserError(f"{path}: {len(lost)} of its samples are in no split of {version} ({_some(lost)}): drop them")
    if len(names) > 1:
        raise UserError(f"{path}: holds samples of {' and '.join(names)}; write one file a split")
    held = set(results.tokens)
    missing = [token for token in splits[names[0]] if token not in held]
    if missing:
        raise UserError(
            f"{path}: lacks {len(missing)} of the {len(splits[names[0]])} samples of {names[0]} ({_some(missing)}); a "
            "sample without boxes has an empty list"
        )
    return names[0]


def check_meta(path: Path, meta: dict) -> None:
    """The flags that the nuScenes server asks for are there. Raises UserError."""
    missing = [name for name in SENSORS if not isinstance(meta.get(name), bool)]
    if missing:
        raise UserError(f"{path}: meta says neither true nor false for {', '.join(missing)}; the server needs it")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not JSON (not UTF-8 at byte {error.start}); name a results file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a results file") from None


def _members(text: str, at: int, member: Callable[[str, int], int]) -> int:
    """Walk the object that begins at `at`; `member(key, start of the value)` returns the value's end. Its own end."""
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return at + 1
    while True:
        if text[at : at + 1] != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
        key, at = _decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
        at = _skip(text, member(key, _skip(text, at + 1)))
        if text[at : at + 1] == "}":
            return at + 1
        if text[at : at + 1] != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _BLANK:
        at += 1
    return at


def _boxes(path: Path, token: str, number: int, records: Any) -> FlatBoxes:
    if not isinstance(records, list):
        raise UserError(f"{path}: sample {token}: is {_kind(records)}, not a list of boxes")
    try:
        boxes = FlatBoxes.from_records(number, records)
        own = all(record["sample_token"] == token for record in records)
    except (KeyError, TypeError, ValueError, OverflowError):
        boxes, own = None, False
    if len(records) > MAX_BOXES:
        raise UserError(f"{path}: sample {token}: holds {len(records)} boxes, more than {MAX_BOXES}; keep the best")
    if boxes is None or not own or not _sound(boxes):
        raise UserError(f"{path}: sample {token}: {_fault(token, records)}")
    return boxes


def _sound(boxes: FlatBoxes) -> bool:
    finite = all(np.isfinite(value).all() for value in (boxes.center, boxes.size, boxes.yaw, boxes.score))
    known = ~np.isinf(boxes.velocity)  # unknown is allowed: NaN
    return finite and bool(known.all() and (boxes.size > 0).all() and (boxes.score >= 0).all())


def _fault(token: str, records: list) -> str:
    """What is wrong with a sample's boxes, which do have a fault."""
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            return f"box {number} is {_kind(record)}, not an object"
        if fault := _box_fault(token, record):
            return f"box {number}: {fault}"
    raise AssertionError("a sample without a fault was refused")


def _box_fault(token: str, record: dict) -> str | None:
    needed = ("sample_token", *VECTORS, "detection_name", "detection_score", "attribute_name")
    if missing := [name for name in needed if name not in record]:
        return f"has no {', '.join(missing)}"
    if record["sample_token"] != token:
        return f"sample_token is {record['sample_token']!r}, and the box stands under another sample"
    if record["detection_name"] not in CLASSES:
        return f"detection_name {record['detection_name']!r} is no class; these are: {', '.join(CLASSES)}"
    if record["attribute_name"] not in ("", *ATTRIBUTES):
        return f"attribute_name {record['attribute_name']!r} is no attribute; these are: '', {', '.join(ATTRIBUTES)}"
    for name, length in VECTORS.items():
        value = record[name]
        if not (isinstance(value, list) and len(value) == length and all(map(_is_number, value))):
            return f"{name} is {_kind(value)}, not a list of {length} numbers"
        if not np.isfinite(value).all() and not (name == "velocity" and not np.isinf(value).any()):
            return f"{name} {value} is not finite"
    if min(record["size"]) <= 0:
        return f"size {record['size']} is not positive"
    value = record["detection_score"]
    if not _is_number(value) or not 0 <= value < float("inf"):
        return f"detection_score is {value!r}, not a number from 0 up"
    return "holds a number out of all range" if not _fits(record) else None


def _fits(record: dict) -> bool:
    try:
        return _sound(FlatBoxes.from_records(0, [record]))
    except (TypeError, ValueError, OverflowError):
        return False


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    text = json.dumps(value)
    return f"a list of {len(value)}" if isinstance(value, list) else text if len(text) <= 40 else f"{text[:37]}..."


def _some(tokens: list[str]) -> str:
    return ", ".join(tokens[:3]) + (", ..." if len(tokens) > 3 else "")
