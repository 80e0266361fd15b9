"""A results file as people have it, read sample by sample into flat arrays, with one clear sentence for what is wrong.

A file for the whole of nuScenes has hundreds of megabytes: parsed as a whole it would be gigabytes of Python objects.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import orjson

from common.errors import UserError
from evaluation.flat import FlatBoxes
from evaluation.submission import MAX_BOXES
from models.names import ATTRIBUTES, CLASSES

VECTORS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}
SENSORS = ("use_camera", "use_lidar", "use_radar", "use_map", "use_external")
SHAPE = '{"meta": {"use_camera": true, ...}, "results": {SAMPLE_TOKEN: [boxes]}}'
_decode = json.JSONDecoder().raw_decode
_END_OF_BOXES = re.compile(r"\}\s*\]")
_BLANK = re.compile("[ \\t\\r\\n]*")
PIECE = 1 << 20  # characters of the file read at a time


class Results(NamedTuple):
    meta: dict
    tokens: list[str]  # of the samples, in the file's order
    boxes: FlatBoxes  # `sample` is a place in `tokens`


def read_results(path: Path) -> Results:
    """Read and check a results file. Raises UserError with the first thing that is wrong and where."""
    meta: dict[str, Any] = {}
    parts: dict[str, FlatBoxes] = {}
    names: list[str] = []
    try:
        with path.open(encoding="utf-8") as file:
            text = _Text(file)
            if text.next() != "{":
                raise UserError(f"{path}: holds {_kind(text.value())}, not an object; a results file is {SHAPE}")
            for name in text.members():
                names.append(name)
                if name == "results" and text.next() == "{":
                    for token in text.members():
                        if token in parts:
                            raise UserError(f"{path}: sample {token} stands there twice; keep one list of boxes")
                        parts[token] = _boxes(path, token, len(parts), text.value())
                    continue
                value = text.value()
                if name in ("results", "meta") and not isinstance(value, dict):
                    raise UserError(f"{path}: `{name}` is {_kind(value)}, not an object; a results file is {SHAPE}")
                if name == "meta":
                    meta = value
            if text.next():
                raise text.error("more follows after the end")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not JSON (not UTF-8); name a results file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a results file") from None
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); write it again, it may have been cut off") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply; a results file is {SHAPE}") from None
    for name in ("results", "meta"):
        if name not in names:
            raise UserError(f"{path}: has no field `{name}`; a results file is {SHAPE}")
    return Results(meta, list(parts), FlatBoxes.joined(parts.values()))


def split_of(path: Path, results: Results, splits: dict[str, list[str]], version: str) -> str:
    """The devkit's name of the split whose samples the file holds, all of them and no others.

    `splits` as from `evaluation.dataroot.split_samples`. Raises UserError.
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
    tokens = set(results.tokens)
    missing = [token for token in splits[names[0]] if token not in tokens]
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


class _Text:
    """JSON read value by value, with no more of the file in memory than the next one needs."""

    def __init__(self, file: TextIO):
        self._file, self._window, self._at = file, "", 0
        self._line = 1  # of the window's beginning

    def next(self) -> str:
        """The character that the next value begins with, "" at the end."""
        while True:
            blank = _BLANK.match(self._window, self._at)
            assert blank is not None  # it matches nothing at all, too
            self._at = blank.end()
            if self._at < len(self._window) or not self._more():
                return self._window[self._at : self._at + 1]

    def value(self) -> Any:
        """The next value. Raises ValueError."""
        self.next()
        while True:
            try:
                value, end = self._list() or _decode(self._window, self._at)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise self.error(error.msg) from None
                continue
            if end < len(self._window) or not self._more():  # a number at the end may go on
                self._at = end
                return value

    def members(self) -> Iterator[str]:
        """The keys of the object that comes next; the caller takes each one's value before it goes on."""
        self._take("{")
        if self.next() == "}":
            return self._take("}")
        while True:
            if self.next() != '"':
                raise self.error("a key in double quotes is missing")
            key = self.value()
            self._take(":")
            yield key
            if self.next() == "}":
                return self._take("}")
            self._take(",")

    def error(self, what: str) -> ValueError:
        return ValueError(f"{what}, line {self._line + self._window.count(chr(10), 0, self._at)}")

    def _list(self) -> tuple[list, int] | None:
        """A list of boxes and its end, by the quick parser; it needs the end beforehand, and a wrong one it refuses."""
        end = _END_OF_BOXES.search(self._window, self._at)
        if end is None or self._window[self._at] != "[":
            return None
        try:
            return orjson.loads(self._window[self._at : end.end()]), end.end()
        except orjson.JSONDecodeError:  # another end, or NaN
            return None

    def _take(self, character: str) -> None:
        if self.next() != character:
            raise self.error(f"{character!r} is missing")
        self._at += 1

    def _more(self) -> bool:
        """Let go of what was taken, and double what is left: a value that never ends is tried few times."""
        self._line += self._window.count("\n", 0, self._at)
        rest = self._window[self._at :]
        added = self._file.read(max(PIECE, len(rest)))
        self._window, self._at = rest + added, 0
        return bool(added)


def _boxes(path: Path, token: str, number: int, records: Any) -> FlatBoxes:
    if not isinstance(records, list):
        raise UserError(f"{path}: sample {token}: is {_kind(records)}, not a list of boxes")
    try:
        boxes = FlatBoxes.from_records(number, records)
        belong = all(record["sample_token"] == token for record in records)
    except (KeyError, TypeError, ValueError, OverflowError):
        boxes, belong = None, False
    if len(records) > MAX_BOXES:
        raise UserError(f"{path}: sample {token}: holds {len(records)} boxes, more than {MAX_BOXES}; keep the best")
    if boxes is None or not belong or not _sound(boxes):
        raise UserError(f"{path}: sample {token}: {_fault(token, records)}")
    return boxes


def _sound(boxes: FlatBoxes) -> bool:
    finite = all(np.isfinite(value).all() for value in (boxes.center, boxes.size, boxes.yaw, boxes.score))
    bounded = ~np.isinf(boxes.velocity)  # NaN is allowed: unknown
    return finite and bool(bounded.all() and (boxes.size > 0).all() and (boxes.score >= 0).all())


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
