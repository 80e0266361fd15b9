"""The nuScenes tables as NumPy columns, every value checked for its type on the way in.

A trainval database has 2.6 million rows in one table: a table is parsed in pieces, and its rows become arrays piece by
piece, so that Python objects exist for one piece at a time. A value that is missing or mistyped is a fault, stands as
its kind's blank, and is marked in `Table.bad`, so that later checks can pass over it and go on.
"""

import codecs
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from common.files import read_regular
from dataroot.faults import Faults
from dataroot.kinds import FIELDS, Kind
from dataroot.names import TABLES
from dataroot.pieces import BETWEEN, read_span, spans

PIECE = 1 << 20  # bytes of JSON parsed at a time: more, and the rows no longer fit the processor's cache
MAY_BE_EMPTY = ("sample_annotation", "instance", "attribute", "visibility", "category")  # as in v1.0-test
DOWNLOAD = "unpack the nuScenes metadata again"


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
    """One table, or the fields `kinds` of it; an unreadable one comes back empty, with `readable` False."""
    table, notes = Table(file), Notes()
    try:
        table, notes = _gathered(file, dataroot / file, kinds)
    except FileNotFoundError:
        faults.add(file, "", "the table is missing", DOWNLOAD)
    except IsADirectoryError:
        faults.add(file, "", "is a folder, not a table", DOWNLOAD)
    except OSError as error:
        faults.add(file, "", f"cannot be read ({error.strerror})", "check the file's permissions and the disk")
    except ValueError as error:
        faults.add(file, "", f"is not a JSON list of rows ({error})", DOWNLOAD)
    if not table.readable:
        table.columns = {field: kind.column([]) for field, kind in kinds.items()}
    elif table.rows == 0 and name not in MAY_BE_EMPTY:
        faults.add(file, "", "the table is empty", DOWNLOAD)
    for (field_, what), rows in notes.items():
        wrong = np.zeros(table.rows, bool)
        wrong[[row for row, _ in rows]] = True
        details = dict(rows)
        faults.add_rows(file, field_, what, "mend these rows, or " + DOWNLOAD, wrong, details.__getitem__)
    return table


Notes = dict[tuple[str, str], list[tuple[int, str]]]  # (field, what) -> [(row, detail)]


class Piece(NamedTuple):
    """Some rows of a table; `wrong` and `notes` say of which values, and what of them."""

    rows: int
    columns: dict[str, np.ndarray]
    wrong: dict[str, np.ndarray]
    notes: Notes


class Column:
    """A column whose rows come in pieces: each goes to its place at once, so that the whole is never there twice."""

    def __init__(self) -> None:
        self._values: np.ndarray | None = None
        self._rows = 0

    def add(self, part: np.ndarray) -> None:
        rows, old = self._rows + len(part), self._values
        if old is None or rows > len(old) or part.dtype.itemsize > old.dtype.itemsize:  # longer texts
            kind = part.dtype if old is None else np.promote_types(old.dtype, part.dtype)
            room = rows if old is None else len(old) if rows <= len(old) else 2 * rows
            self._values = np.empty((room, *part.shape[1:]), kind)  # memory that nothing is written to takes none
            if old is not None:
                self._values[: self._rows] = old[: self._rows]
        assert self._values is not None
        self._values[self._rows : rows] = part
        self._rows = rows

    def all(self) -> np.ndarray:
        assert self._values is not None
        return self._values[: self._rows]


def _gathered(file: str, path: Path, kinds: dict[str, Kind]) -> tuple[Table, Notes]:
    if cut := spans(path, PIECE):
        try:
            lists = (_parse(b"[" + read_span(path, span) + b"]") for span in cut)
            return _joined(file, (_typed_piece(rows, kinds) for rows in lists), kinds)
        except ValueError:
            pass  # a cut inside a text, or no JSON: all of it tells which, and where
    return _joined(file, (_typed_piece(rows, kinds) for rows in _pieces(path)), kinds)


def _joined(file: str, pieces: Iterable[Piece], kinds: dict[str, Kind]) -> tuple[Table, Notes]:
    """The table of its pieces, and what is wrong with its values."""
    table, notes, columns, wrong = Table(file, readable=True), Notes(), {}, {}
    for field_, kind in kinds.items():
        columns[field_], wrong[field_] = Column(), Column()
        columns[field_].add(kind.column([]))
        wrong[field_].add(np.zeros(0, bool))
    for piece in pieces:
        for key, found in piece.notes.items():
            notes.setdefault(key, []).extend((table.rows + row, detail) for row, detail in found)
        for field_ in kinds:
            columns[field_].add(piece.columns[field_])
            wrong[field_].add(piece.wrong[field_])
        table.rows += piece.rows
    table.columns = {field_: column.all() for field_, column in columns.items()}
    table.bad = {field_: mask.all() for field_, mask in wrong.items() if mask.all().any()}
    return table, notes


def _typed_piece(rows: list, kinds: dict[str, Kind]) -> Piece:
    notes: Notes = {}
    rows, columns, wrong = _objects(rows, notes), {}, {}
    for name, kind in kinds.items():
        values, wrong[name] = _typed(rows, name, kind, notes)
        columns[name] = kind.column(values)
    return Piece(len(rows), columns, wrong, notes)


def _pieces(path: Path) -> Iterator[list]:
    """The rows of a JSON list, some 1 MB of text at a time. Raises OSError, or ValueError for what is no JSON list."""
    data = read_regular(path)
    start, end = data.find(b"[") + 1, data.rfind(b"]")
    if len(data) <= 2 * PIECE or start == 0 or data[: start - 1].strip() or data[end + 1 :].strip():
        yield _parse(data)
        return
    while start < end:
        cut = BETWEEN.search(data, min(start + PIECE, end), end)
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


MISSING = object()


def _objects(rows: list, notes: Notes) -> list[dict]:
    if set(map(type, rows)) <= {dict}:
        return rows
    for row, value in enumerate(rows):
        if type(value) is not dict:
            notes.setdefault(("", "not objects"), []).append((row, _clipped(value)))
    return [row if type(row) is dict else {} for row in rows]


def _typed(rows: list[dict], name: str, kind: Kind, notes: Notes) -> tuple[list, np.ndarray]:
    """The values of a field, blanks standing for what is missing or mistyped, and the mask of those."""
    wrong = np.zeros(len(rows), bool)
    absent = kind.blank if kind.optional else MISSING
    values = [row.get(name, absent) for row in rows]
    if kind.all_fit(values):
        return values, wrong
    for row, value in enumerate(values):
        if value is MISSING:
            notes.setdefault((name, "without this field"), []).append((row, "missing"))
        elif not kind.fits(value):
            notes.setdefault((name, f"where it is not {kind.words}"), []).append((row, _clipped(value)))
        else:
            continue
        values[row] = kind.blank
        wrong[row] = True
    return values, wrong


def _clipped(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
