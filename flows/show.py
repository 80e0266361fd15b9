"""What the command line prints: tables on a terminal and in a pipe alike, colour only on a terminal."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.engine.plan import Planned

STATE_STYLE = {"cached": "green", "running": "blue", "resume": "yellow", "run": "cyan"}


def console() -> Console:
    """Standard output; a pipe gets wide lines, so that no value is cut."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=160)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def plan_table(plan: list[Planned], why: bool = True) -> None:
    """One row a stage: its state, its size and folder, and why it would run."""
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "state", "size", "key", *(["why"] if why else [])):
        table.add_column(column, overflow="fold")
    for planned in plan:
        row = planned.as_json()
        state = f"[{STATE_STYLE[planned.state]}]{planned.state}[/]"
        cells = [planned.name, state, size(row["bytes"]), (row["key"] or "-")[:16]]
        table.add_row(*cells, *([planned.why] if why else []))
    console().print(table)


def size(count: int) -> str:
    """A byte count for people."""
    if not count:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
