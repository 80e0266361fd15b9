"""Faults of a dataset, collected so that ONE report names all of them by file and field; and what is only odd."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

MAX_EXAMPLES = 5  # examples of one kind of fault; the rest is counted


@dataclass(frozen=True)
class Fault:
    """One kind of fault in one field of one file."""

    file: str  # relative to the dataroot
    field: str  # "" where the file as a whole is at fault
    what: str
    remedy: str


class FileFault(NamedTuple):
    """What is wrong with one file."""

    what: str
    detail: str = ""
    remedy: str = ""  # "" for the usual one: get the file again


@dataclass
class Faults:
    """The faults so far, in the order of the checks; and warnings, which are no faults, name -> sentence.

    files: the faulty ones that `ingest.leave_out` can name.
    """

    faults: list[Fault] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    warnings: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.faults)

    def add(self, file: str, field: str, what: str, remedy: str) -> None:
        self.faults.append(Fault(file, field, what, remedy))

    def warn(self, name: str, sentence: str) -> None:
        """Something odd that may be meant; the sentence holds the value that makes it odd."""
        self.warnings[name] = sentence

    def add_rows(
        self, file: str, field: str, what: str, remedy: str, bad: np.ndarray, show: Callable[[int], str]
    ) -> None:
        """One fault for all rows of a table in which the mask `bad` (rows,) is set; `show(row)` words the examples."""
        rows = np.flatnonzero(bad)
        if len(rows):
            examples = [f"row {row}: {show(int(row))}" for row in rows[:MAX_EXAMPLES].tolist()]
            self.add(file, field, _sentence(f"{_count(len(rows), 'row')} {what}", examples, len(rows)), remedy)

    def add_files(self, what: str, remedy: str, files: Iterable[tuple[str, str, str]]) -> None:
        """One fault a file for the first few (file, field, detail) of a kind, then one that counts the rest."""
        files = list(files)
        for file, name, detail in files[:MAX_EXAMPLES]:
            self.add(file, name, f"{what} ({detail})" if detail else what, remedy)
        if len(files) > MAX_EXAMPLES:
            self.add("...", files[MAX_EXAMPLES][1], f"{what}: {_count(len(files) - MAX_EXAMPLES, 'more file')}", remedy)

    def report(self, of: str) -> str:
        """The table of all faults, one line each."""
        head = ("file", "field", "fault", "remedy")
        rows = [tuple(map(_one_line, (f.file, f.field or "-", f.what, f.remedy))) for f in self.faults]
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(2)]
        lines = [
            "  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + [f"{row[2]} | {row[3]}"])
            for row in [head, *rows]
        ]
        return f"{of}: {_count(len(self), 'fault')}\n" + "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _sentence(text: str, examples: list[str], total: int) -> str:
    return f"{text} ({'; '.join(examples)}{'; ...' if total > len(examples) else ''})"


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
