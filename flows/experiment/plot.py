"""The experiment as one picture: every run a point, over the share of labels, an arm's mean a line."""

import io
from pathlib import Path
from typing import Any

from flows.experiment.result import JUDGED
from storage.atomic import write_bytes
from tasks.engine.experiment import TITLES


def draw_gain(path: Path, result: dict[str, Any]) -> None:
    """Write a PNG: NDS and mAP, one colour an arm; points of an arm stand a little aside of the other arms'."""
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys(row["arm"] for row in result["spread"]))
    fractions = list(dict.fromkeys(row["fraction"] for row in result["spread"]))
    figure = Figure((4.6 * len(JUDGED), 3.8), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(JUDGED), squeeze=False)[0], JUDGED):
        for a, arm in enumerate(arms):
            shift = 0.09 * (a - (len(arms) - 1) / 2)
            rows = [row for row in result["spread"] if row["arm"] == arm]
            at = [fractions.index(row["fraction"]) + shift for row in rows]
            means, stds = [row[metric]["mean"] for row in rows], [row[metric]["std"] for row in rows]
            colour = f"C{a}"
            axes.errorbar(at, means, stds, fmt="-_", color=colour, capsize=4, markersize=12, label=TITLES[arm])
            for score in (s for s in result["scores"] if s["arm"] == arm):
                place = fractions.index(score["fraction"]) + shift
                axes.plot(place, score[metric], "o", color=colour, markersize=4, alpha=0.6)
        axes.set_xticks(range(len(fractions)), [f"{fraction:.0%}" for fraction in fractions])
        axes.set_xlim(-0.5, len(fractions) - 0.5)
        axes.set(xlabel="share of the scenes with labels", ylabel=f"{metric}, official, on val")
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    write_bytes(path, data.getvalue())
