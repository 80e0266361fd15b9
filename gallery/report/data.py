"""The health of a run's data: counts, what ingest found odd, and whether the caches' numbers look sound."""

from dataclasses import dataclass

import numpy as np

from gallery.health import ODD, health
from gallery.report.curves import Curve
from gallery.report.run import Run
from gallery.report.svg import Chart
from models.names import CLASSES
from storage.index import UNCOUNTED, Index

BINS = 24


@dataclass(frozen=True)
class Data:
    facts: list[tuple[str, str]]
    warnings: list[str]
    charts: list[Curve]
    boxes: list[tuple[str, dict[str, int]]]  # class -> split -> boxes
    splits: list[str]


def data(run: Run) -> Data:
    out = Data([], [], [], [], [])
    with run.notes.unless("the counts of the data"):
        _ingested(run, out)
    with run.notes.unless("the state of the teacher's cache"):
        _teacher(run, out)
    with run.notes.unless("the state of the depth cache"):
        _depth(run, out)
    for name in ("ingest", "teacher", "depth"):
        with run.notes.unless(f"a look at what {name} holds"):
            folder = run.folder(name) if run.manifest(name) else None
            for store, facts in health(folder).items() if folder else ():
                if ODD in facts:
                    out.warnings.append(f"{store}: {facts[ODD]}")
    return out


def _ingested(run: Run, out: Data) -> None:
    manifest, index = run.manifest("ingest"), run.index
    if manifest is None or index is None:
        return
    summary = manifest.summary
    splits = ", ".join(f"{count:,} of {name}" for name, count in summary["splits"].items())
    points = index.box_lidar_points
    unseen = "not counted" if (points == UNCOUNTED).any() else f"{int((points == 0).sum()):,}"
    out.facts.extend(
        [
            ("tables", summary["version"]),
            ("scenes", f"{summary['scenes']:,}"),
            ("samples", f"{summary['samples']:,} ({splits})"),
            ("boxes", f"{summary['boxes']:,}, {np.mean(index.box_label >= 0):.0%} of them of a class"),
            ("boxes without a LiDAR point", unseen),
            ("samples without a box", f"{int((np.diff(index.box_offsets) == 0).sum()):,}"),
            ("files looked at", f"{summary['files']:,}, {summary['clouds_read']:,} point clouds by their values"),
        ]
    )
    out.warnings.extend(f"{name}: {told}" for name, told in summary["warnings"].items())
    out.splits.extend(split for split in ("train", "val", "test") if (index.split == split).any())
    out.boxes.extend(_boxes(index, out.splits))


def _boxes(index: Index, splits: list[str]) -> list[tuple[str, dict[str, int]]]:
    of_sample = np.repeat(np.arange(len(index)), np.diff(index.box_offsets))
    split = index.split[of_sample]
    return [
        (name, {s: int(((index.box_label == i) & (split == s)).sum()) for s in splits})
        for i, name in enumerate(CLASSES)
    ]


def _teacher(run: Run, out: Data) -> None:
    opened, manifest = run.opened("teacher"), run.manifest("teacher")
    if opened is None or opened.bev is None or manifest is None:
        return
    channels, x, y = opened.bev.shape
    counts = opened.bev.store.counts()[:, 0]
    share = counts / (x * y)
    out.facts.append(("teacher's maps", f"{channels} channels on {x} x {y} cells"))
    out.facts.append(
        ("active share of cells", f"{share.mean():.1%} in the mean, {share.min():.1%} to {share.max():.1%}")
    )
    if (gate := manifest.summary.get("gate")) and gate.get("mAP") is not None:
        out.facts.append(("teacher's mAP", f"{gate['mAP']:.4f} on {gate['samples']} samples, measured before caching"))
    if empty := int((counts == 0).sum()):
        out.warnings.append(f"the teacher's map of {empty} samples is empty")
    out.charts.append(_histogram("active share of BEV cells", share, "share of cells that hold something"))


def _depth(run: Run, out: Data) -> None:
    opened = run.opened("depth")
    if opened is None or opened.depth is None:
        return
    counts = opened.depth.counts()
    told = f"{counts.sum(1).mean():,.0f} in the mean, {counts.sum(1).min():,} to {counts.sum(1).max():,}"
    out.facts.append(("LiDAR points in the images, per sample", told))
    if empty := int((counts.sum(1) == 0).sum()):
        out.warnings.append(f"of {empty} samples no LiDAR point falls into an image")
    out.charts.append(_histogram("LiDAR points in the images", counts.sum(1), "points per sample"))


def _histogram(title: str, values: np.ndarray, label: str) -> Curve:
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(values, min(BINS, max(4, len(values) // 4)), (low, high))
    told = f"{title}: {len(values)} samples from {low:.4g} to {high:.4g}, median {np.median(values):.4g}"
    chart = Chart((low, high), (0, float(counts.max()) * 1.08), labels=(label, "samples"), title=told)
    for count, left, right in zip(counts.tolist(), edges.tolist(), edges[1:].tolist()):
        chart.bar((left, right), count, "s0", f"{count} samples from {left:.4g} to {right:.4g}")
    return Curve(title, "", chart.svg())


def boxes_chart(of: Data) -> str:
    """Boxes by class: a bar a class, the splits one behind the other."""
    rows, totals = len(of.boxes), [sum(counts.values()) for _, counts in of.boxes]
    told = "; ".join(f"{name} {total:,}" for (name, _), total in zip(of.boxes, totals))
    chart = Chart(
        (0, max([*totals, 1]) * 1.02),
        (rows - 0.4, -0.6),
        (640, 50 + 22 * rows),
        ("boxes", ""),
        title=f"Boxes by class: {told}",
        left=150,
        right=100,
        rules=False,
    )
    for row, (name, counts) in enumerate(of.boxes):
        chart.beside(row, name, " + ".join(f"{count:,}" for count in counts.values()))
        start = 0
        for place, (split, count) in enumerate(counts.items()):
            chart.block((start, start + count), row, f"s{place}", f"{name}: {count:,} in {split}")
            start += count
    return chart.svg()
