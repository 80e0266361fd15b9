"""Draws docs/architecture.svg from the code: the rooms with their imports, and the stages with their artifacts.

    python docs/architecture.py

Rooms, layers and imports come from the import rules in pyproject.toml and from the imports themselves, the words in a
room from its `__init__.py`, the stages from the table in tasks/engine/stage.py.
"""

import ast
import sys
import textwrap
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SVG = REPOSITORY / "docs" / "architecture.svg"

WIDTH, MARGIN = 1240, 30
LAYER_GAP, ROOM_GAP = 48, 60
LINE, LETTER = 18, 6.9  # px: a line of text, and a letter of it
MONO = 7.9  # px a letter of a name, at most
CHIP_HEIGHT, CHIP_GAP = 26, 8
STAGE_WIDTH, STAGE_HEIGHT, STAGE_GAP = 166, 118, 40

# Light, and dark where the reader's device is: name -> (colour, colour).
COLOURS = {
    "page": ("#ffffff", "#0d1117"),
    "ink": ("#1f2328", "#e6edf3"),
    "faint": ("#59636e", "#9198a1"),
    "room": ("#f6f8fa", "#161b22"),
    "edge": ("#c2cad3", "#3d444d"),
    "chip": ("#dbeafe", "#17304f"),
    "stage": ("#e8f6ec", "#12301d"),
    "stage-edge": ("#79b98c", "#2f6f45"),
    "arrow": ("#57606a", "#9aa4af"),
}


@dataclass
class Room:
    """A top-level package: its code lines, its words, and its sub-packages with their lines."""

    name: str
    lines: int
    words: str
    packages: dict[str, int]
    imports: set[str] = field(default_factory=set)  # other rooms


@dataclass(frozen=True)
class Box:
    """A rectangle in px, from its top left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height


# --- what the code says -----------------------------------------------------------------------------------------------


def layers() -> list[list[str]]:
    """Names of rooms, the topmost layer first, as the import rules have them."""
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rule = next(contract for contract in contracts if contract["type"] == "layers")
    return [[name.strip() for name in layer.split("|")] for layer in rule["layers"]]


def room(name: str, rooms: Iterable[str]) -> Room:
    """What a folder holds and imports, lazy imports included."""
    folder = REPOSITORY / name
    packages = sorted(path.parent for path in folder.glob("*/__init__.py"))
    words = " ".join((ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "").split())
    return Room(
        name,
        lines(folder),
        words.split(". ")[0].split(": ")[0].rstrip(".").replace("`", ""),
        {package.name: lines(package) for package in packages},
        {imported for file in folder.rglob("*.py") for imported in imports(file)} & set(rooms) - {name},
    )


def lines(folder: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in folder.rglob("*.py"))


def imports(file: Path) -> set[str]:
    """The top-level packages that a file imports."""
    out = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            out |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            out.add(node.module.partition(".")[0])
    return out


def reduced(edges: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The edges of a DAG (from -> to) that do not follow from others."""

    def reach(name: str) -> set[str]:
        return edges[name] | {far for near in edges[name] for far in reach(near)}

    return [(a, b) for a, near in edges.items() for b in sorted(near) if not any(b in reach(c) for c in near - {b})]


# --- drawing ----------------------------------------------------------------------------------------------------------


def draw() -> str:
    """The picture."""
    parts, bottom = _rooms()
    stages, end = _stages(bottom + 74)
    style = "".join(f".{name}{{fill:{light}}}.{name}-line{{stroke:{light}}}" for name, (light, _) in COLOURS.items())
    dark = "".join(f".{name}{{fill:{dark}}}.{name}-line{{stroke:{dark}}}" for name, (_, dark) in COLOURS.items())
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {end + MARGIN:g}" role="img" '
        'aria-label="The rooms of geomim and its stages">\n'
        f"<style>text{{font-family:Helvetica,Arial,'DejaVu Sans',sans-serif;font-size:13px}}"
        "text.name{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}"
        "text.small{font-size:11.5px}text.title{font-weight:bold}text.head{font-size:17px;font-weight:bold}"
        f"{style}@media(prefers-color-scheme:dark){{{dark}}}</style>\n"
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L10 5L0 10z" class="arrow"/></marker></defs>\n'
        f'<rect width="{WIDTH}" height="{end + MARGIN:g}" class="page"/>\n'
    )
    return head + "\n".join([*parts, *stages]) + "\n</svg>\n"


def _rooms() -> tuple[list[str], float]:
    """The layers of rooms with their imports, and where they end."""
    names = layers()
    rooms = {name: room(name, [n for layer in names for n in layer]) for layer in names for name in layer}
    parts = [
        _text(MARGIN, 38, "Rooms", "ink head"),
        _text(
            MARGIN + 72,
            38,
            "a room imports those below it that its arrows lead to, near or far; in blue its packages, "
            "with lines of code",
            "faint",
        ),
    ]
    boxes: dict[str, Box] = {}
    y = 60.0
    for layer in names:
        width = (WIDTH - 2 * MARGIN - ROOM_GAP * (len(layer) - 1)) / len(layer)
        height = max(_height(rooms[name], width) for name in layer)
        for column, name in enumerate(layer):
            boxes[name] = Box(MARGIN + column * (width + ROOM_GAP), y, width, height)
        y += height + LAYER_GAP
    boxes = {name: _narrowed(box, boxes) for name, box in boxes.items()}
    for name, box in boxes.items():
        parts += _room_box(rooms[name], box)
    for start, end in reduced({name: r.imports for name, r in rooms.items()}):
        parts.append(_down(boxes[start], boxes[end]))
    return parts, y - LAYER_GAP


def _narrowed(box: Box, boxes: dict[str, Box]) -> Box:
    """A room alone in the middle of the layers gives way to arrows that pass it on the left."""
    full = box.width == WIDTH - 2 * MARGIN
    between = any(b.y < box.y and b.width < box.width for b in boxes.values()) and any(
        b.y > box.y and b.width < box.width for b in boxes.values()
    )
    half = (box.width - ROOM_GAP) / 2
    return Box(box.x + half + ROOM_GAP, box.y, half, box.height) if full and between else box


def _chip_rows(packages: dict[str, int], width: float) -> list[list[tuple[str, int]]]:
    rows: list[list[tuple[str, int]]] = [[]]
    used = 0.0
    for item in packages.items():
        needed = _chip_width(item) + CHIP_GAP
        if used + needed > width and rows[-1]:
            rows.append([])
            used = 0.0
        rows[-1].append(item)
        used += needed
    return [row for row in rows if row]


def _chip_width(item: tuple[str, int]) -> float:
    return (
        MONO * (len(item[0]) + len("0,000")) + 28
    )  # whatever the count: the picture changes with the code's shape alone


def _wrapped(words: str, width: float) -> list[str]:
    return textwrap.wrap(words, int(width / LETTER))


def _height(of: Room, width: float) -> float:
    return (
        38
        + LINE * len(_wrapped(of.words, width - 32))
        + (CHIP_HEIGHT + CHIP_GAP) * len(_chip_rows(of.packages, width - 32))
    )


def _room_box(of: Room, box: Box) -> list[str]:
    left, y = box.x + 16, box.y + 24
    parts = [
        _rect(box, "room edge-line", 8),
        _text(left, y, f"{of.name}/", "ink name title"),
        _text(box.x + box.width - 16, y, f"{of.lines:,} lines", "faint count", "end"),
    ]
    for line in _wrapped(of.words, box.width - 32):
        y += LINE
        parts.append(_text(left, y, line, "faint"))
    y += 12
    for row in _chip_rows(of.packages, box.width - 32):
        x = left
        for name, count in row:
            width = _chip_width((name, count))
            parts.append(_rect(Box(x, y, width, CHIP_HEIGHT), "chip", 6))
            parts.append(_text(x + 10, y + 17, name, "ink name"))
            parts.append(_text(x + width - 10, y + 17, f"{count:,}", "faint count", "end"))
            x += width + CHIP_GAP
        y += CHIP_HEIGHT + CHIP_GAP
    return parts


def _down(start: Box, end: Box) -> str:
    """An arrow from the bottom of a box to the top of one below it: upright, or through the gap between the columns."""
    low, high = max(start.x, end.x), min(start.x + start.width, end.x + end.width)
    if high > low:
        x = (low + high) / 2
        return _arrow(f"M{x:g} {start.bottom:g}V{end.y - 2:g}")
    if end.x > start.x:
        x1, gap, x2 = start.x + start.width - 70, end.x - ROOM_GAP / 2, end.x + 40
    else:
        x1, gap, x2 = start.x + 90, start.x - ROOM_GAP / 2, end.x + end.width - 40
    y1, y2, half = start.bottom, end.y - 2, LAYER_GAP / 2
    if y2 - y1 < 2 * LAYER_GAP:
        return _arrow(f"M{x1:g} {y1:g}C{x1:g} {y2 - 8:g} {x2:g} {y1 + 8:g} {x2:g} {y2:g}")
    return _arrow(
        f"M{x1:g} {y1:g}C{x1:g} {y1 + half:g} {gap:g} {y1 + 8:g} {gap:g} {y1 + LAYER_GAP:g}"
        f"V{y2 - LAYER_GAP:g}C{gap:g} {y2 - 8:g} {x2:g} {y2 - half:g} {x2:g} {y2:g}"
    )


def _stages(y: float) -> tuple[list[str], float]:
    """The stages with what they leave, each right of those that it needs, and where they end."""
    sys.path.insert(0, str(REPOSITORY))
    from tasks.engine.stage import STAGES

    depth: dict[str, int] = {}
    for stage in STAGES.values():
        depth[stage.name] = 1 + max((depth[need] for need in stage.needs), default=-1)
    columns = max(depth.values()) + 1
    step = (WIDTH - 2 * MARGIN - STAGE_WIDTH) / (columns - 1)
    rows: dict[int, int] = {}
    boxes = {}
    for name, column in depth.items():
        row = rows.get(column, 0)
        rows[column] = row + 1
        boxes[name] = Box(MARGIN + column * step, y + row * (STAGE_HEIGHT + STAGE_GAP), STAGE_WIDTH, STAGE_HEIGHT)
    height = max(rows.values()) * (STAGE_HEIGHT + STAGE_GAP) - STAGE_GAP
    source = next(iter(STAGES))
    assert all(source in stage.needs for stage in STAGES.values() if stage.name != source)
    needs = {name: set(stage.needs) for name, stage in STAGES.items()}
    edges = reduced(needs)
    implied = [(a, b) for a, near in needs.items() for b in sorted(near) if (a, b) not in edges and b != source]
    parts = [
        _text(MARGIN, y - 30, "Stages", "ink head"),
        _text(
            MARGIN + 72,
            y - 30,
            f"what each leaves in its artifact, and who reads it (all of them read {source}'s); "
            "GPU: one at a time has the device",
            "faint",
        ),
    ]
    parts += [_across(boxes[read], boxes[reader]) for reader, read in (*edges, *implied)]
    for stage in STAGES.values():
        parts += _stage_box(boxes[stage.name], stage.name, stage.title, stage.outputs, stage.on_device, stage.entry)
    return parts, y + height + 8


def _stage_box(box: Box, name: str, title: str, outputs: tuple[str, ...], on_device: bool, entry: str) -> list[str]:
    files = [o for o in outputs if not o.startswith(".")]
    stores = [o for o in files if o.endswith((".zarr", ".safetensors"))] or files[:2]
    parts = [_rect(box, "stage stage-edge-line", 8), _text(box.x + 12, box.y + 22, name, "ink name title")]
    if on_device:
        parts.append(_text(box.x + box.width - 12, box.y + 22, "GPU", "faint", "end"))
    y = box.y + 22
    for line in _wrapped(title, box.width - 20):
        y += 16
        parts.append(_text(box.x + 12, y, line, "faint"))
    y = box.bottom - 10 - 16 * (len(stores) - 1)
    for store in stores:
        parts.append(_text(box.x + 12, y, store, "ink name small"))
        y += 16
    return parts


def _across(start: Box, end: Box) -> str:
    """An arrow from the right side of a box to the left of one beside or below it, or to the bottom of one above."""
    x1, x2, y1, y2 = start.x + start.width, end.x - 2, start.y + start.height / 2, end.y + end.height / 2
    if end.bottom < start.y:
        y1 += (end.x - start.x) / 12 - 30  # the farther it leads, the lower it starts: no two lie on each other
        return _arrow(
            f"M{x1:g} {y1:g}H{end.middle - 24:g}Q{end.middle:g} {y1:g} {end.middle:g} {y1 - 24:g}V{end.bottom + 2:g}"
        )
    bend = (x2 - x1) / 2
    return _arrow(f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}")


def _arrow(path: str) -> str:
    return f'<path d="{path}" fill="none" class="arrow-line" stroke-width="1.5" marker-end="url(#tip)"/>'


def _rect(box: Box, classes: str, radius: int) -> str:
    return (
        f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="{radius}" '
        f'class="{classes}"/>'
    )


def _text(x: float, y: float, text: str, classes: str, anchor: str = "start") -> str:
    end = ' text-anchor="end"' if anchor == "end" else ""
    return f'<text x="{x:g}" y="{y:g}" class="{classes}"{end}>{escape(text)}</text>'


if __name__ == "__main__":
    SVG.write_text(draw())
    print(SVG.relative_to(REPOSITORY))
