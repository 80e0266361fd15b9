"""The metrics that a training left, line by line, and how they are made readable."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HELD_OUT = "held_out_"
ASIDE = ("step", "loss", "gradient_norm", "rate", "seconds", "seconds_waiting", "skipped", "skip_samples")
_TASK = re.compile(r"^task\d+\.")  # of a head of several branches


@dataclass(frozen=True)
class Series:
    """A figure over steps."""

    step: np.ndarray  # (n,)
    value: np.ndarray  # (n,)


@dataclass(frozen=True)
class Log:
    """Of one training."""

    losses: dict[str, Series]  # `loss` first; what branches of a head have is summed
    held_out: dict[str, Series]  # without HELD_OUT before the names
    steps: int
    seconds_a_step: float  # median
    waiting: float  # share of the time in which it waited for data


def read_log(path: Path) -> Log:
    """A `metrics.jsonl`. A last line that is half written is left out, as resuming does. Raises OSError."""
    values: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
            step = int(entry["step"])
        except (ValueError, KeyError, TypeError):
            continue
        for name, value in _terms(entry).items():
            values.setdefault(name, []).append((step, value))
    series = {name: Series(*map(np.array, zip(*pairs))) for name, pairs in values.items()}
    losses = {name: s for name, s in series.items() if name not in ASIDE and not name.startswith(HELD_OUT)}
    losses = {name: s for name, s in losses.items() if not _same(s, series.get("loss"))}
    first = {"loss": series["loss"]} if "loss" in series else {}
    held_out = {name.removeprefix(HELD_OUT): s for name, s in series.items() if name.startswith(HELD_OUT)}
    seconds, waited = (series[name].value if name in series else np.zeros(1) for name in ("seconds", "seconds_waiting"))
    steps = int(series["loss"].step[-1]) + 1 if first else 0
    return Log(
        first | losses, held_out, steps, float(np.median(seconds)), float(waited.sum() / max(seconds.sum(), 1e-9))
    )


def smoothed(values: np.ndarray, share: float = 0.04) -> np.ndarray:
    """(n,) centred means over a share of all values, fewer at the ends."""
    half = max(0, round(len(values) * share / 2))
    sums, places = np.concatenate([[0.0], np.cumsum(values)]), np.arange(len(values))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def envelope(series: Series, bins: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, least and greatest values in at most so many pieces."""
    pieces = np.array_split(np.arange(len(series.value)), min(bins, len(series.value)))
    middles = np.array([series.step[piece].mean() for piece in pieces])
    low, high = (np.array([of(series.value[piece]) for piece in pieces]) for of in (np.min, np.max))
    return middles, low, high


def thinned(series: Series, most: int = 200) -> Series:
    """At most so many of its values, the first and the last among them."""
    rows = np.unique(np.linspace(0, len(series.step) - 1, min(most, len(series.step))).astype(int))
    return Series(series.step[rows], series.value[rows])


def _terms(entry: dict) -> dict[str, float]:
    """Numbers by name."""
    out: dict[str, float] = {}
    for name, value in entry.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            short = _TASK.sub("", name)
            out[short] = out.get(short, 0.0) + float(value)
    return out


def _same(one: Series, other: Series | None) -> bool:
    return other is not None and len(one.value) == len(other.value) and np.array_equal(one.value, other.value)
