"""The nuScenes tables as NumPy columns, every value checked for its type on the way in.

A trainval database has 2.6 million rows in one table: a table is parsed in pieces, and its rows become arrays piece by
piece, so that Python objects exist for one piece at a time. A value that is missing or mistyped is a fault, stands as
its kind's blank, and is marked in `Table.bad`, so that later checks can pass over it and go on.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from common.files import read_regular
from dataroot.faults import Faults
from dataroot.names import TABLES

PIECE = 1 << 20  # bytes of JSON parsed at a time: more, and the rows no longer fit the processor's cache
LONGEST_TEXT = 1024  # longer than any token or path; fixed-width columns must not be blown up by one value
MAY_BE_EMPTY = ("sample_annotation", "instance", "attribute", "visibility", "category")  # as in v1.0-test
DOWNLOAD = "unpack the nuScenes metadata again"


@dataclass(frozen=True)
class Kind:
    """One type of field: how to tell it, fast for a list of values and slowly for one, and how to make it a column."""

    words: str
    all_fit: Callable[[list], bool]
    fits: Callable[[Any], bool]
    column: Callable[[list], np.ndarray]
    blank: Any
    optional: bool = False  # an absent field stands as the blank and is no fault


def _text_column(values: list[str]) -> np.ndarray:
    try:
        return np.array(values, dtype="S") if values else np.zeros(0, "S1")
    except UnicodeEncodeError:
        return np.array([value.encode("utf-8", "surrogatepass") for value in values])


def _are(kind: type, values: list) -> bool:
    return set(map(type, values)) <= {kind}


def _short(values: list[str]) -> bool:
    return max(map(len, values), default=0) <= LONGEST_TEXT


def _numbers(length: int) -> Kind:
    def fits(value: Any) -> bool:
        return type(value) is list and len(value) == length and {type(v) for v in value} <= {int, float}

    def all_fit(values: list) -> bool:
        return (
            _are(list, values)
            and set(map(len, values)) <= {length}
            and set(map(type, chain.from_iterable(values))) <= {int, float}
        )

    def column(values: list) -> np.ndarray:
        count = len(values) * length
        return np.fromiter(chain.from_iterable(values), np.float64, count).reshape(-1, length)

    return Kind(f"a list of {length} numbers", all_fit, fits, column, [0.0] * length)


def _is_intrinsics(value: Any) -> bool:
    return value == [] or (type(value) is list and len(value) == 3 and all(_numbers(3).fits(row) for row in value))


def _is_stamp(value: Any) -> bool:
    return INTEGER.fits(value) or (type(value) is float and value.is_integer() and abs(value) < 2**53)


def _is_flag(value: Any) -> bool:
    return type(value) is bool or (type(value) is int and value in (0, 1))


NO_INTRINSICS = np.full((3, 3), np.nan)
TEXT = Kind(
    "text", lambda v: _are(str, v) and _short(v), lambda v: type(v) is str and len(v) <= LONGEST_TEXT, _text_column, ""
)
TOKEN = Kind(
    "a token (text that is not empty)",
    lambda v: TEXT.all_fit(v) and all(v),
    lambda v: TEXT.fits(v) and v != "",
    _text_column,
    "",
)
OPTIONAL_TEXT = Kind(TEXT.words, TEXT.all_fit, TEXT.fits, _text_column, "", optional=True)
TOKENS = Kind(
    "a list of tokens",
    lambda v: _are(list, v) and TOKEN.all_fit(list(chain.from_iterable(v))),
    lambda v: type(v) is list and all(TOKEN.fits(token) for token in v),
    lambda v: _text_column(["\n".join(tokens) for tokens in v]),  # split again by `tokens_of`
    [],
)
INTEGER = Kind(
    "a whole number",
    lambda v: _are(int, v) and (not v or (min(v) >= -(2**63) and max(v) < 2**63)),
    lambda v: type(v) is int and -(2**63) <= v < 2**63,
    lambda v: np.array(v, np.int64),
    0,
)
STAMP = Kind(
    "a whole number of microseconds",
    lambda v: INTEGER.all_fit(v) or all(map(_is_stamp, v)),
    lambda v: _is_stamp(v),
    lambda v: np.array(v, np.int64),  # the devkit computes the same with 5.0 as with 5
    0,
)
FLAG = Kind(
    "true or false",
    lambda v: _are(bool, v) or all(map(_is_flag, v)),
    lambda v: _is_flag(v),
    lambda v: np.array(v, bool),  # the devkit asks 1 and 0 as it does true and false
    False,
)
VECTOR = _numbers(3)
QUATERNION = _numbers(4)
INTRINSICS = Kind(
    "[] or a 3x3 matrix",
    lambda v: all(map(_is_intrinsics, v)),
    _is_intrinsics,
    lambda v: np.array([NO_INTRINSICS if m == [] else m for m in v], np.float64).reshape(-1, 3, 3),
    [],
)

# What of each table is read. The devkit needs these fields too; others may be there and are passed over.
FIELDS: dict[str, dict[str, Kind]] = {
    "category": {"token": TOKEN, "name": TOKEN},
    "attribute": {"token": TOKEN, "name": TOKEN},
    "visibility": {"token": TOKEN},
    "instance": {"token": TOKEN, "category_token": TOKEN},
    "sensor": {"token": TOKEN, "channel": TOKEN, "modality": TOKEN},
    "calibrated_sensor": {
        "token": TOKEN,
        "sensor_token": TOKEN,
        "translation": VECTOR,
        "rotation": QUATERNION,
        "camera_intrinsic": INTRINSICS,
    },
    "ego_pose": {"token": TOKEN, "translation": VECTOR, "rotation": QUATERNION},
    "log": {"token": TOKEN, "location": OPTIONAL_TEXT},
    "scene": {"token": TOKEN, "name": TOKEN, "log_token": OPTIONAL_TEXT},
    "sample": {"token": TOKEN, "timestamp": STAMP, "scene_token": TOKEN, "prev": TEXT, "next": TEXT},
    "sample_data": {
        "token": TOKEN,
        "sample_token": TOKEN,
        "ego_pose_token": TOKEN,
        "calibrated_sensor_token": TOKEN,
        "timestamp": STAMP,
        "is_key_frame": FLAG,
        "height": INTEGER,
        "width": INTEGER,
        "filename": TOKEN,
        "prev": TEXT,
        "next": TEXT,
    },
    "sample_annotation": {
        "token": TOKEN,
        "sample_token": TOKEN,
        "instance_token": TOKEN,
        "visibility_token": OPTIONAL_TEXT,
        "attribute_tokens": TOKENS,
        "translation": VECTOR,
        "size": VECTOR,
        "rotation": QUATERNION,
        "num_lidar_pts": INTEGER,
        "num_radar_pts": INTEGER,
        "prev": TEXT,
        "next": TEXT,
    },
    "map": {"token": TOKEN, "log_tokens": TOKENS, "filename": TOKEN},
}


@dataclass
class Table:
    """The columns of one table. Text is UTF-8 bytes of fixed width ("S")."""

    file: str  # relative to the dataroot
    readable: bool = False
    rows: int = 0
    columns: dict[str, np.ndarray] = field(default_factory=dict)  # field -> (rows, ...)
    bad: dict[str, np.ndarray] = field(default_factory=dict)  # field -> (rows,) bool; only fields with a bad value

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def good(self, *names: str) -> np.ndarray:
        """(rows,) bool: rows in which all these fields are there and well typed."""
        good = np.ones(self.rows, bool)
        for name in names:
            if name in self.bad:
                good &= ~self.bad[name]
        return good

    def text(self, name: str, rows: np.ndarray | None = None) -> np.ndarray:
        """Values of a text field as Python strings, in an object array of the shape of `rows`."""
        column = self.columns[name] if rows is None else self.columns[name][rows]
        out = np.empty(column.shape, object)
        out.flat[:] = [value.decode("utf-8", "replace") for value in column.ravel().tolist()]
        return out

    def named(self, row: int) -> str:
        """How a report names a row: by its token."""
        return f"token {self['token'][row].decode('utf-8', 'replace') or '(none)'}"


def tokens_of(value: bytes) -> list[bytes]:
    """The tokens in one value of a TOKENS column."""
    return value.split(b"\n") if value else []


def read_tables(dataroot: Path, version: str, faults: Faults) -> dict[str, Table]:
    """Every table of `dataroot/version` by name; what is wrong with one goes into `faults`."""
    return {name: read_table(dataroot, f"{version}/{name}.json", FIELDS[name], faults, name) for name in TABLES}


def read_table(dataroot: Path, file: str, kinds: dict[str, Kind], faults: Faults, name: str) -> Table:
    """One table; an unreadable one comes back empty, with `readable` False."""
    table = Table(file)
    parts: dict[str, list[np.ndarray]] = {field: [] for field in kinds}
    bad: dict[str, list[np.ndarray]] = {field: [] for field in kinds}
    notes: dict[tuple[str, str], list[tuple[int, str]]] = {}
    try:
        for rows in _pieces(dataroot / file):
            rows = _objects(rows, table.rows, notes)
            for name_, kind in kinds.items():
                values, wrong = _typed(rows, name_, kind, table.rows, notes)
                parts[name_].append(kind.column(values))
                bad[name_].append(wrong)
            table.rows += len(rows)
        table.readable = True
    except FileNotFoundError:
        faults.add(file, "", "the table is missing", DOWNLOAD)
    except IsADirectoryError:
        faults.add(file, "", "is a folder, not a table", DOWNLOAD)
    except OSError as error:
        faults.add(file, "", f"cannot be read ({error.strerror})", "check the file's permissions and the disk")
    except ValueError as error:
        faults.add(file, "", f"is not a JSON list of rows ({error})", DOWNLOAD)
    if not table.readable:
        table.rows = 0
    elif table.rows == 0 and name not in MAY_BE_EMPTY:
        faults.add(file, "", "the table is empty", DOWNLOAD)
    for (field_, what), rows in notes.items():
        wrong = np.zeros(table.rows, bool)
        wrong[[row for row, _ in rows if row < table.rows]] = True
        details = dict(rows)
        faults.add_rows(file, field_, what, "mend these rows, or " + DOWNLOAD, wrong, details.__getitem__)
    for field_, kind in kinds.items():
        pieces = parts[field_] if table.readable and parts[field_] else [kind.column([])]
        table.columns[field_] = np.concatenate(pieces)
        wrong = np.concatenate(bad[field_]) if table.readable and bad[field_] else np.zeros(0, bool)
        if wrong.any():
            table.bad[field_] = wrong
    return table


def _pieces(path: Path) -> Iterator[list]:
    """The rows of a JSON list, some 1 MB of text at a time. Raises OSError, or ValueError for what is no JSON list."""
    data = read_regular(path)
    start, end = data.find(b"[") + 1, data.rfind(b"]")
    if len(data) <= 2 * PIECE or start == 0 or data[: start - 1].strip() or data[end + 1 :].strip():
        yield _parse(data)
        return
    between = re.compile(rb"\}\s*,\s*\{")
    while start < end:
        cut = between.search(data, min(start + PIECE, end), end)
        stop = cut.start() + 1 if cut else end
        try:
            yield _parse(b"[" + data[start:stop] + b"]")
            start = cut.end() - 1 if cut else end
        except ValueError:
            # A cut inside a string or a nested list leaves a half that does not parse, so a wrong one cannot go unseen:
            # the rest is then parsed in one go. The line breaks make the parser name the file's own lines.
            yield _parse(b"\n" * data.count(b"\n", 0, start) + b"[" + data[start:end] + b"]")
            return


def _parse(text: bytes) -> list:
    rows = parse_json(text)
    if not isinstance(rows, list):
        raise ValueError(f"a {type(rows).__name__} stands at the top")
    return rows


def parse_json(text: bytes) -> Any:
    """JSON as the devkit reads it: UTF-8 without a byte order mark. Raises ValueError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    if text.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("it begins with a byte order mark, at which the devkit stops: save it as UTF-8 without one")
    try:
        # Python's own parser takes NaN and Infinity, which are then found by field; other errors it names by line.
        return json.loads(text.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


Notes = dict[tuple[str, str], list[tuple[int, str]]]  # (field, what) -> [(row, detail)]
MISSING = object()


def _objects(rows: list, first: int, notes: Notes) -> list[dict]:
    if _are(dict, rows):
        return rows
    for row, value in enumerate(rows):
        if type(value) is not dict:
            notes.setdefault(("", "not objects"), []).append((first + row, _clipped(value)))
    return [row if type(row) is dict else {} for row in rows]


def _typed(rows: list[dict], name: str, kind: Kind, first: int, notes: Notes) -> tuple[list, np.ndarray]:
    """The values of a field, blanks standing for what is missing or mistyped, and the mask of those."""
    wrong = np.zeros(len(rows), bool)
    absent = kind.blank if kind.optional else MISSING
    values = [row.get(name, absent) for row in rows]
    if kind.all_fit(values):
        return values, wrong
    for row, value in enumerate(values):
        if value is MISSING:
            notes.setdefault((name, "without this field"), []).append((first + row, "missing"))
        elif not kind.fits(value):
            notes.setdefault((name, f"where it is not {kind.words}"), []).append((first + row, _clipped(value)))
        else:
            continue
        values[row] = kind.blank
        wrong[row] = True
    return values, wrong


def _clipped(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
