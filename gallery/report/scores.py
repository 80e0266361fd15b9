"""The scores of a run as words and tables, of any task: the headline, the verdict, classes, distances and the gain."""

from dataclasses import dataclass
from typing import Any

from evaluation import table
from gallery.report.run import Arm, Run
from gallery.report.svg import Chart
from tasks.engine.plan import Planned

FOUND = 0.1  # AP from which on a class counts as found
SHOWN = 0.01  # AP below which a class counts as not found at all
ERROR_UNITS = {"ATE": "m", "ASE": "1 - IoU", "AOE": "rad", "AVE": "m/s", "AAE": "1 - accuracy"}


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column names them. marks: (row, column) -> how long the bar in a cell is, 1 at most."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    marks: dict[tuple[int, int], float]


@dataclass(frozen=True)
class Figure:
    """A number of the headline."""

    name: str
    value: str
    told: str


def headline(run: Run) -> list[Figure]:
    """Every arm's scores, the gain, and on what."""
    out, scored = [], [arm for arm in run.arms if arm.metrics]
    for score in table.MAIN_SCORES:
        of = [(arm, arm.metrics[score]) for arm in scored if arm.metrics and arm.metrics.get(score) is not None]
        out += [Figure(f"{score}, {arm.name}", f"{value:.4f}", "") for arm, value in of]
        if len(of) == 2:
            gain = of[0][1] - of[1][1]
            out.append(Figure(f"{score}, gain", f"{gain:+.4f}" if gain else "0", "one seed: can be chance"))
    if scored:
        metrics: dict[str, Any] = scored[0].metrics or {}
        boxes = f"{_boxes(metrics):,} boxes" if "bands" in metrics else ""
        out.append(Figure(f"samples of {metrics.get('split', 'val')}", f"{metrics['samples']:,}", boxes))
    return out


def verdict(run: Run) -> str:
    """What the scores say, and what they cannot say."""
    arms = run.arms
    if not arms or arms[0].metrics is None:
        return _unscored(run)
    first, metrics = arms[0], arms[0].metrics
    score = "NDS" if "NDS" in metrics else "mIoU"
    if metrics.get(score) is None:
        return "There was nothing to score."
    best = _best(metrics)
    scored = f"{score} is {metrics[score]:.4f}"
    if len(arms) == 1:
        what = f" The detector{best}." if best else ""
        alone = "without a second arm this says nothing on what pretraining is worth"
        return f"{_capital(first.name)}, {scored}; {alone}.{what}"
    if (other := arms[1].metrics) is None or other.get(score) is None:
        return f"With pretraining, {scored}; the baseline has no scores yet, so there is no gain to tell."
    compared = [
        f"{name} is {metrics[name]:.4f}, {_difference(metrics[name], other[name])}"
        for name in ("NDS", "mAP", "mIoU")
        if metrics.get(name) is not None and other.get(name) is not None
    ]
    what = f" The pretrained detector{best}." if best else ""
    return f"With pretraining, {'; '.join(compared)}. One seed each: this alone cannot tell a gain from chance.{what}"


def class_table(arm: Arm) -> Table:
    """AP and errors by class; of maps, all that is known of a layer or class."""
    assert arm.metrics is not None
    if "bands" in arm.metrics:
        rows = table.rows(arm.metrics)
        values = [scores["AP"] if scores["ground_truth"] else 0.0 for scores in arm.metrics["classes"].values()]
        marks = _bars({(row, 1): value for row, value in enumerate(values)})
        columns = [f"{name} ({ERROR_UNITS[name]})" if name in ERROR_UNITS else name for name in table.COLUMNS]
        return Table(f"{_capital(arm.name)}, by class", columns, rows, marks)
    of_kind = arm.metrics.get("layers") or arm.metrics["classes"]
    columns = list(next(iter(of_kind.values())))
    rows = [[name, *(_cell(scores[column]) for column in columns)] for name, scores in of_kind.items()]
    rows.append(["mean", _cell(arm.metrics["mIoU"]), *[""] * (len(columns) - 1)])
    marks = _bars({(row, 1): scores["IoU"] or 0.0 for row, scores in enumerate(of_kind.values())})
    kind = "layer" if "layers" in arm.metrics else "class"
    return Table(f"{_capital(arm.name)}, by {kind}", [kind, *columns], rows, marks)


def band_tables(arm: Arm) -> list[Table]:
    """Means by distance, AP by class and distance, and each error by class and distance."""
    if not arm.metrics or "bands" not in arm.metrics:
        return []
    metrics, bands = arm.metrics, arm.metrics["bands"]
    bands = {name: band for name, band in bands.items() if band["mAP"] is not None}  # with boxes to find
    metrics = metrics | {"bands": bands}
    means = Table("Means over the classes that are there", list(table.BAND_COLUMNS), table.band_rows(metrics), {})
    names = [name for name, scores in metrics["classes"].items() if scores["ground_truth"]]
    of = {name: [band["classes"][name] for band in bands.values()] for name in names}
    marks = {(r, c): s["AP"] for r, name in enumerate(names) for c, s in enumerate(of[name], 1) if s["ground_truth"]}
    ap = [row for row in table.band_class_rows(metrics) if row[0] in names]
    out = [means, Table("AP (boxes to find)", ["class", *bands], ap, _bars(marks))]
    for error, unit in ERROR_UNITS.items():
        told = [name for name in names if metrics["classes"][name][error] is not None]
        rows = [[name, *(_cell(s[error]) if s["ground_truth"] else "-" for s in of[name])] for name in told]
        if rows:
            out.append(Table(f"{error} ({unit})", ["class", *bands], rows, {}))
    return out


def gain_table(first: Arm, second: Arm) -> Table:
    """All scores of two arms and the gain, as the pipeline prints them."""
    assert first.metrics is not None
    assert second.metrics is not None
    lines = table.comparison({first.name: first.metrics, second.name: second.metrics}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return Table("Both arms", cells[0], cells[2:], {})


def gain_chart(first: Arm, second: Arm) -> str:
    """AP, or IoU, of every class in both arms: a line from the second to the first."""
    pairs = _pairs(first, second)
    highest = max((max(pair) for pair in pairs.values()), default=0.0)
    rows, width = len(pairs), 640
    score = "AP" if "bands" in (first.metrics or {}) else "IoU"
    said = "; ".join(f"{name} {a:.4f} against {b:.4f}" for name, (a, b) in pairs.items())
    chart = Chart(
        (-0.02 * max(highest, 0.01), max(highest * 1.05, 0.01)),  # a dot at 0 is not cut
        (rows - 0.4, -0.6),
        (width, 50 + 24 * rows),
        (score, ""),
        title=f"{score} by class, {first.name} against {second.name}: {said}",
        left=150,
        right=78,
        rules=False,
    )
    for row, (name, (a, b)) in enumerate(pairs.items()):
        chart.beside(row, name, f"{a - b:+.4f}" if a != b else "0")
        chart.line((b, a), (row, row), "joint")
        chart.dots([b], [row], "s1 hollow", 6)  # around the other where both are the same
        chart.dots([a], [row], "s0", 3.5)
    return chart.svg()


def _bars(values: dict[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """Against the highest."""
    highest = max(values.values(), default=0.0)
    return {place: value / highest if highest else 0.0 for place, value in values.items()}


def _pairs(first: Arm, second: Arm) -> dict[str, tuple[float, float]]:
    one, other = (arm.metrics or {} for arm in (first, second))
    if "bands" in one:
        names = [name for name, scores in one["classes"].items() if scores["ground_truth"]]
        return {name: (one["classes"][name]["AP"], other["classes"][name]["AP"]) for name in names}
    of, beside = (metrics.get("layers") or metrics["classes"] for metrics in (one, other))
    values = {name: (of[name]["IoU"], beside[name]["IoU"]) for name in of}
    return {name: (a, b) for name, (a, b) in values.items() if a is not None and b is not None}


def _unscored(run: Run) -> str:
    evaluation = run.node("evaluate")
    if run.arms and run.manifest("evaluate") is not None and not run.notes.sentences:
        return "The split that was predicted has no ground truth, so nothing is scored."
    waiting = [planned.name for planned in run.plan if planned.state != "cached"]
    why = _why(evaluation) if evaluation else ""
    return f"There are no scores yet: {', '.join(waiting) or 'evaluate'} still to run{why}."


def _why(planned: Planned) -> str:
    return f" ({planned.why})" if planned.why.startswith("damaged") else ""


def _best(metrics: dict[str, Any]) -> str:
    """Which classes a detector finds, in words."""
    if "bands" not in metrics:
        return ""
    of = {name: scores["AP"] for name, scores in metrics["classes"].items() if scores["ground_truth"]}
    found = sorted((name for name, ap in of.items() if ap >= FOUND), key=lambda name: -of[name])
    lost = sum(ap < SHOWN for ap in of.values())
    words = ", ".join(f"{name.replace('_', ' ')} ({of[name]:.2f})" for name in found[:3])
    if not found:
        return f" finds no class with an AP above {FOUND:g}"
    return f" finds {words} best by AP; {lost} of {len(of)} classes have an AP below {SHOWN:g}"


def _difference(value: float, base: float) -> str:
    """Against the other arm, in words."""
    if value == base:
        return "as without"
    share = f" ({value / base - 1:+.0%})" if base else ""
    return f"{abs(value - base):.4f} {'more' if value > base else 'less'} than without{share}"


def _boxes(metrics: dict[str, Any]) -> int:
    return sum(scores["ground_truth"] for scores in metrics["classes"].values())


def _cell(value: float | int | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
