"""Evaluation results as tables, four decimals throughout: by class, by distance, and arms side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

MAIN_SCORES = ("mAP", "NDS", "mIoU")  # boxes have the first two, maps the last
ERRORS = ("ATE", "ASE", "AOE", "AVE", "AAE")
MEAN_ERRORS = tuple(f"m{error}" for error in ERRORS)
COLUMNS = ("class", "AP", *ERRORS, "ground truth")
BAND_COLUMNS = ("distance", "mAP", "NDS", *MEAN_ERRORS, "ground truth")
BAND_NOTE = "By distance from the ego: means over the classes with ground truth there; each class's AP (ground truth)."
GAIN_NOTE = "A gain above 0 is for the better: a higher score or a smaller error."


def main_scores(summary: Mapping[str, Any]) -> dict[str, float]:
    """What stands for a result, by name; nothing where nothing was scored."""
    return {name: summary[name] for name in MAIN_SCORES if isinstance(summary.get(name), float)}


def rows(metrics: dict) -> list[list[str]]:
    """Rows of text, one a class, the means last. Without ground truth a class has no numbers: its AP 0 says nothing."""
    out = []
    for name, scores in metrics["classes"].items():
        if scores["ground_truth"] == 0:
            out.append([name, *["-"] * (1 + len(ERRORS)), "none"])
        else:
            out.append([name, *(_decimals(scores[c]) for c in ("AP", *ERRORS)), str(scores["ground_truth"])])
    means = (_decimals(metrics[key]) for key in ("mAP", *MEAN_ERRORS))
    out.append(["mean", *means, str(_ground_truth(metrics))])
    return out


def summary_line(metrics: dict) -> str:
    """mAP and NDS in one line, and what lowers them unseen: classes without ground truth, no predictions at all."""
    line = f"mAP {metrics['mAP']:.4f}, NDS {metrics['NDS']:.4f} on {metrics['split']} ({metrics['samples']} samples)"
    missing = [name for name, scores in metrics["classes"].items() if scores["ground_truth"] == 0]
    if missing:
        line += f"; no ground truth for {', '.join(missing)}: the official mean counts AP 0 there"
    if metrics.get("own_classes"):
        line += "; by geomim's metrics, since the devkit does not know the categories that ingest.classes maps"
    if metrics["predictions"] == 0:
        line += "; nothing was predicted at all, which scores zero"
    return line


def band_rows(metrics: dict) -> list[list[str]]:
    """Rows of text, one a band of distance: what BAND_COLUMNS names."""
    return [
        [name, *(_decimals(band[key]) for key in BAND_COLUMNS[1:-1]), str(_ground_truth(band))]
        for name, band in metrics["bands"].items()
    ]


def band_class_rows(metrics: dict) -> list[list[str]]:
    """Rows of text, one a class: its AP in each band, and in brackets how many boxes there are to find."""
    out = []
    for name in metrics["classes"]:
        scores = [band["classes"][name] for band in metrics["bands"].values()]
        cells = (f"{_decimals(s['AP'])} ({s['ground_truth']})" if s["ground_truth"] else "-" for s in scores)
        out.append([name, *cells])
    return out


def markdown(metrics: dict) -> str:
    """The tables by class and by distance in Markdown, with the summary line above them."""

    def table(columns: Sequence[str], body: list[list[str]]) -> str:
        lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *body]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    by_class, bands, by_both = (table(columns, body) for columns, body in _tables(metrics))
    return "\n".join([summary_line(metrics) + "\n", by_class, BAND_NOTE + "\n", bands, by_both])


def text(metrics: dict) -> str:
    """The tables by class and by distance in aligned columns for a terminal or log, the summary line below them."""
    by_class, bands, by_both = (_aligned(columns, body) for columns, body in _tables(metrics))
    return "\n".join([by_class, BAND_NOTE, bands, by_both, summary_line(metrics) + "\n"])


def _tables(metrics: dict) -> list[tuple[Sequence[str], list[list[str]]]]:
    return [
        (COLUMNS, rows(metrics)),
        (BAND_COLUMNS, band_rows(metrics)),
        (("class", *metrics["bands"]), band_class_rows(metrics)),
    ]


def _aligned(columns: Sequence[str], body: list[list[str]]) -> str:
    table = [list(columns), *body]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))])
        for line in table
    ]
    return "\n".join(lines) + "\n"


def comparison(arms: Mapping[str, dict]) -> str:
    """Results of any task side by side in Markdown: one column an arm; of two, the first's gain over the second too.

    A class without ground truth has no AP.
    """
    results = list(arms.values())
    if "mAP" in results[0]:  # detection
        values = {key: [result[key] for result in results] for key in ("mAP", "NDS", *MEAN_ERRORS)}
        for name in results[0]["classes"]:
            classes = [result["classes"][name] for result in results]
            values[f"AP {name}"] = [scores["AP"] if scores["ground_truth"] else None for scores in classes]
    elif "layers" in results[0]:  # segmentation
        values = {"mIoU": [result["mIoU"] for result in results]}
        for name in results[0]["layers"]:
            for figure in ("IoU", "IoU@max"):
                values[f"{figure} {name}"] = [result["layers"][name][figure] for result in results]
    else:  # occupancy
        values = {figure: [result[figure] for result in results] for figure in ("mIoU", "IoU")}
        for name in results[0]["classes"]:
            values[f"IoU {name}"] = [result["classes"][name]["IoU"] for result in results]
    return compared(list(arms), values)


def gain(arms: Mapping[str, dict], seed: int) -> str:
    """Markdown: the scores of two arms that differ in what they began with, and what that can say."""
    note = (
        f"Both arms had the same seed ({seed}), data, order, augmentation and budget; `baseline` began where "
        "pretraining did."
    )
    chance = "One seed: differences of this size can be chance."
    return "\n".join(["## Gain", "", comparison(arms), GAIN_NOTE, note, "", chance, ""])


def compared(names: list[str], values: dict[str, list[float | None]]) -> str:
    """Figures of several arms in Markdown, one column an arm; of two, by how much the first is better (`gain`) too."""
    header = ["", *names]
    lines = {key: list(map(_decimals, line)) for key, line in values.items()}
    if len(names) == 2:
        header.append("gain")
        for key, (first, second) in values.items():
            if first is None or second is None:
                lines[key].append("-")
            else:
                lines[key].append(f"{second - first if key in MEAN_ERRORS else first - second:+.4f}")
    return _table(header, lines)


def plain(header: list[str], values: dict[str, list[float | int | None]]) -> str:
    """Named lines of figures in Markdown."""
    cells = {key: [str(v) if isinstance(v, int) else _decimals(v) for v in line] for key, line in values.items()}
    return _table(header, cells)


def _table(header: list[str], lines: dict[str, list[str]]) -> str:
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *([key, *line] for key, line in lines.items())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _ground_truth(scores: dict) -> int:
    return sum(of_class["ground_truth"] for of_class in scores["classes"].values())


def _decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
