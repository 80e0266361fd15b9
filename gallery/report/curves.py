"""Charts of trainings: losses of both arms over each other, and what was measured on held-out samples."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gallery.report.logs import Log, Series, envelope, read_log, smoothed, thinned
from gallery.report.run import Run
from gallery.report.svg import Chart, spread

# What a held-out figure says (docs/pretraining.md), and what is shown beside it.
MEANING = {
    "reconstruction": "error of the rebuilt BEV map (lower is better)",
    "active": "the same where the teacher's map is not empty",
    "depth": "error of the depth, m (lower is better)",
    "depth_rebuilt": "the same from earlier frames alone, m",
    "delta1": "share of depths within a factor of 1.25",
    "psnr": "rendered colours, dB (higher is better)",
    "psnr_rebuilt": "the same from earlier frames alone, dB",
    "probe_ap": "linear probe for occupied cells, AP",
    "probe_iou": "the same, IoU",
    "rank": "effective rank of the features (near 2: collapsed)",
    "centers": "focal loss of boxes' centres (lower is better)",
}
BESIDE = ("zero", "mean_map", "shuffled", "blind", "constant")
_RANGE = re.compile(r"_\d+_\d+$")  # of one range of distances
_PREFIX = re.compile(r"^rendered_")  # of MIM4D's figures in a joint pretraining


@dataclass(frozen=True)
class Curve:
    title: str
    told: str  # what it says
    svg: str
    beside: tuple[str, ...] = ()  # the names of what is drawn in s1, s2 ...


@dataclass(frozen=True)
class Training:
    """A stage's trainings, one an arm."""

    title: str
    told: list[str]
    arms: tuple[str, ...]  # drawn as s0, s1
    losses: list[Curve]
    held_out: list[Curve]
    figures: list[tuple[str, str]]  # the last held-out figures


def trainings(run: Run) -> list[Training]:
    """Of all stages that have learnt something, finished or not."""
    arms = {arm.name: f"finetune{arm.suffix}" for arm in run.arms}
    kinds: list[tuple[str, dict[str, str], str]] = [
        ("Fitting the LiDAR teacher", {"fit": "fit"}, "log/metrics.jsonl"),
        ("Pretraining", {"pretrain": "pretrain"}, "metrics.jsonl"),
        ("Finetuning", arms, "log/metrics.jsonl"),
    ]
    out = []
    for title, nodes, file in kinds:
        logs: dict[str, Log] = {}
        for name, node in nodes.items():
            with run.notes.unless(f"the curves of {node}"):
                if (path := run.checked(node, file)) is not None and (log := read_log(path)).losses:
                    logs[name] = log
        if logs:
            out.append(_training(title, logs))
    return out


def _training(title: str, logs: Mapping[str, Log]) -> Training:
    told = [
        f"{f'{name}: ' if len(logs) > 1 else ''}{log.steps:,} steps, {log.seconds_a_step:.2g} s each (median), "
        f"{log.waiting:.1%} of the time spent waiting for data"
        for name, log in logs.items()
    ]
    names = list(dict.fromkeys(name for log in logs.values() for name in log.losses))
    losses = [_loss(name, [log.losses.get(name) for log in logs.values()], title) for name in names]
    first = next(iter(logs.values()))
    figures = [(name, f"{series.value[-1]:.4f}") for name, series in first.held_out.items()]
    return Training(title, told, tuple(logs), losses, _held_out(first.held_out), figures)


def _loss(name: str, arms: list[Series | None], title: str) -> Curve:
    """Means over the raw values, by which the axis is chosen; what of the raw values lies beyond is cut off."""
    there = [(place, series) for place, series in enumerate(arms) if series is not None]
    means = [Series(series.step, smoothed(series.value)) for _, series in there]
    values = np.concatenate([mean.value for mean in means])
    positive = values[np.isfinite(values) & (values > 0)]
    log = bool(len(positive) == len(values) and positive.max() > 3 * positive.min())
    low, high = spread(values, 0.12)
    ends = (float(positive.min()) * 0.85, float(positive.max()) * 1.15) if log else (low, high)
    last = max(float(series.step[-1]) for _, series in there)
    said = "; ".join(f"from {mean.value[0]:.3g} to {mean.value[-1]:.3g}" for mean in means)
    chart = Chart((0, last), ends, labels=("step", ""), log_y=log, title=f"{title}, {name} over steps: {said}")
    for place, series in there:
        chart.area(*envelope(series), f"s{place}")
    for (place, _), mean in zip(there, means):
        line = thinned(mean)
        chart.line(line.step, line.value, f"s{place}")
    return Curve(name.replace("_", " "), "logarithmic" if log else "", chart.svg())


def _held_out(figures: Mapping[str, Series]) -> list[Curve]:
    curves = []
    for name, series in figures.items():
        base = _PREFIX.sub("", name)
        if _RANGE.search(name) or base not in MEANING:
            continue
        beside = {word: figures[other] for word, other in _beside(name) if other in figures}
        lines = [series, *beside.values()]
        values = np.concatenate([line.value for line in lines])
        steps = np.concatenate([line.step for line in lines])
        room = float(np.ptp(steps)) * 0.04 or 1.0
        ends = (float(steps.min()) - room, float(steps.max()) + room)
        said = ", ".join(f"{word} {line.value[-1]:.3g}" for word, line in beside.items())
        told = f"On held-out samples, {name} at the end {series.value[-1]:.3g}" + (
            f"; beside it {said}" if said else ""
        )
        chart = Chart(ends, spread(values, 0.15), labels=("step", ""), title=told)
        for place, line in reversed([*enumerate(lines)]):
            chart.line(line.step, line.value, f"s{place}")
            chart.dots(line.step, line.value, f"s{place}", 3 if place == 0 else 2)
        title = f"{name.replace('_', ' ')}: {series.value[-1]:.3g}"
        curves.append(Curve(title, MEANING[base], chart.svg(), tuple(beside)))
    return curves


def _beside(name: str) -> list[tuple[str, str]]:
    """(words, name) of figures that say how good one is."""
    if "probe_" in name:
        return [("prior", name.replace("probe_", "prior_"))]
    if name == "reconstruction":
        return [(word.replace("_", " "), word) for word in BESIDE]
    if name == "centers":
        return [("blind", "blind")]
    return [(word.replace("_", " "), f"{name}_{word}") for word in BESIDE]
