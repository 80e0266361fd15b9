"""The stages of a run as a picture and as rows: what reads what, the state of each, its time and size."""

from dataclasses import dataclass
from html import escape

from common.amounts import duration, size
from gallery.report.run import Run, state
from storage.manifest import contents
from tasks.engine.dag import BASELINE
from tasks.engine.plan import Planned

WIDTH, HEIGHT, ACROSS, DOWN = 162, 76, 44, 20  # px of a stage, and between two
MARKS = {"cached": "✓", "running": "▶", "unfinished": "◐", "to run": "○", "damaged": "✕"}


@dataclass(frozen=True)
class Row:
    """A stage in the table."""

    name: str
    does: str
    mark: str
    state: str
    style: str
    why: str
    seconds: str
    bytes: str
    created: str
    folder: str


def rows(run: Run) -> list[Row]:
    out = []
    for planned in run.plan:
        manifest, folder = run.manifest(planned.name), run.folder(planned.name)
        word = state(planned)
        out.append(
            Row(
                planned.name,
                planned.stage.title,
                MARKS[word],
                word,
                word.replace(" ", "-"),
                planned.why,
                duration(manifest.seconds) if manifest else "-",
                _bytes(run, planned),
                manifest.created.replace("T", " ").replace("Z", " UTC") if manifest else "-",
                str(folder or (planned.step.artifact.path if planned.step else "-")),
            )
        )
    return out


def graph(run: Run) -> str:
    """An SVG: an arrow leads from what is read to what reads it; those that follow from others are left out."""
    places = _places(run.plan)
    width = max(left for left, _ in places.values()) + WIDTH + 4
    height = max(top for _, top in places.values()) + HEIGHT + 4
    edges = [_arrow(places[need], places[name]) for name, needs in _reduced(run.plan).items() for need in needs]
    boxes = [_box(run, planned, *places[planned.name]) for planned in run.plan]
    told = "; ".join(
        f"{p.name} ({state(p)}){' reads ' + ', '.join(p.node.needs.values()) if p.node.needs else ''}" for p in run.plan
    )
    tip = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
    marker = f'<defs><marker id="tip" {tip}><path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>'
    sides = f'viewBox="0 0 {width} {height}" style="min-width:{round(width * 0.72)}px;max-width:{width}px"'
    return f'<svg {sides} role="img" aria-label="{escape(told)}">{marker}{"".join(edges)}{"".join(boxes)}</svg>'


def _reduced(plan: list[Planned]) -> dict[str, list[str]]:
    """Name -> what it reads, without what something else that it reads has read."""
    behind: dict[str, set[str]] = {}
    out = {}
    for planned in plan:
        needs = list(planned.node.needs.values())
        out[planned.name] = [need for need in needs if not any(need in behind[other] for other in needs)]
        behind[planned.name] = set(needs).union(*(behind[need] for need in needs))
    return out


def _places(plan: list[Planned]) -> dict[str, tuple[int, int]]:
    """Name -> left and top, px. Every stage stands right before the first that reads it, the second arm in a row of its
    own below all others."""
    names = [planned.name for planned in plan]
    column: dict[str, int] = {}
    for planned in reversed(plan):
        column[planned.name] = (
            min((column[p.name] for p in plan if planned.name in p.node.needs.values()), default=0) - 1
        )
    first = min(column.values())
    both = "teacher" in names and "depth" in names
    lanes = {"fit": 0.0, "teacher": 0.0, "depth": float(both)}
    second_arm = 2.0 if both else 1.0
    out = {}
    for name in names:
        lane = second_arm if name.endswith(BASELINE) else lanes.get(name, 0.5 * both)
        out[name] = 4 + (column[name] - first) * (WIDTH + ACROSS), 4 + round(lane * (HEIGHT + DOWN))
    return out


def _arrow(source: tuple[int, int], target: tuple[int, int]) -> str:
    """It changes its row in the first gap."""
    (x, y), (to, down) = (source[0] + WIDTH, source[1] + HEIGHT // 2), (target[0], target[1] + HEIGHT // 2)
    turn, half = x + ACROSS - 8, (ACROSS - 8) // 2
    way = f"M{x} {y}C{x + half} {y} {turn - half} {down} {turn} {down}H{to - 1}"
    return f'<path class="edge" marker-end="url(#tip)" d="{way}"/>'


def _box(run: Run, planned: Planned, left: int, top: int) -> str:
    word = state(planned)
    manifest = run.manifest(planned.name)
    facts = f"{duration(manifest.seconds)} · {_bytes(run, planned)}" if manifest else _bytes(run, planned)
    key = planned.step.artifact.key[:8] if planned.step else ""
    lines = [
        f'<text class="name" x="{left + 12}" y="{top + 22}">{escape(planned.name)}</text>',
        f'<text class="state" x="{left + 12}" y="{top + 42}">{MARKS[word]} {escape(_state_words(planned))}</text>',
        f'<text class="fact" x="{left + 12}" y="{top + 62}">{escape(facts if manifest else key)}</text>',
    ]
    shape = f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>'
    told = f"<title>{escape(planned.stage.title)}; {escape(word)} {escape(planned.why)}</title>"
    return f'<g class="stage {word.replace(" ", "-")}">{told}{shape}{"".join(lines)}</g>'


def _state_words(planned: Planned) -> str:
    word = state(planned)
    if word in ("unfinished", "running") and planned.why[:1].isdigit():
        return f"{planned.why.removesuffix(' done')}"
    if word == "cached" and planned.step:
        return f"cached  {planned.step.artifact.key[:8]}"
    return word


def _bytes(run: Run, planned: Planned) -> str:
    manifest, folder = run.manifest(planned.name), run.folder(planned.name)
    if manifest:
        return size(manifest.bytes)
    return size(sum(count for _, count in contents(folder).values())) if folder else "-"
