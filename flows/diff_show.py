"""What `geomim diff` prints, for people."""

from typing import Any

from rich.table import Table

from flows.diff import Differences
from flows.show import console, size

TITLES = {
    "recipe": "what decides the result",
    "inputs": "inputs",
    "results": "results",
    "arrays": "arrays",
    "files": "files with other bytes",
    "made": "how it was made",
    "config": "values",
    "keys": "stages that get another key",
}


def show_differences(equal: bool, head: dict[str, Any], sections: dict[str, Differences]) -> None:
    """One table a section in which something differs; differences of numbers beside the numbers."""
    out = console()
    for side, colour in (("a", "red"), ("b", "green")):
        out.print(f"[{colour}]{side.upper()}[/]  ", end="")
        out.print(head[side], soft_wrap=True, markup=False)
    if equal:
        out.print("equal in all that decides a result" if head["kind"] == "artifact" else "equal in every value")
    for name, fields in sections.items():
        shown = [field for field in fields if name != "results" or _is_main(field)]
        if not shown:
            continue
        out.print(f"[bold]{TITLES[name]}[/]")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column, style in (("", ""), ("A", "red"), ("B", "green"), *([("B - A", "")] if name == "results" else [])):
            table.add_column(column, style=style, overflow="fold")
        for field in shown:
            one, other = fields[field]
            change = [f"{other - one:+.4g}" if _is_number(one) and _is_number(other) else ""]
            table.add_row(f"  {field}", _told(one), _told(other), *(change if name == "results" else []))
        out.print(table, markup=False)
        if len(shown) < len(fields):
            out.print(f"  {len(fields) - len(shown)} more scores differ: --json has them")
    if head.get("keys_unknown"):
        out.print(f"which stages get another key is not known: {head['keys_unknown']}", soft_wrap=True, markup=False)


def _is_main(field: str) -> bool:
    """Whether a result is shown: of the scores by class AP alone, and none by distance."""
    of_class = field.startswith("metrics.classes.") and field.endswith(".AP")
    return not field.startswith("metrics.") or field.count(".") == 1 or of_class


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _told(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):  # of an entry's files
        return f"{value['files']} files, {size(value['bytes'])}, {value['differ']} differ"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
