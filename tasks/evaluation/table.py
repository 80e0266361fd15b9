"""Evaluation results as tables, four decimals throughout."""

ERRORS = ("ATE", "ASE", "AOE", "AVE", "AAE")
COLUMNS = ("class", "AP", *ERRORS, "ground truth")


def rows(metrics: dict) -> list[list[str]]:
    """Rows of text, one a class, the means last. Without ground truth a class has no numbers: its AP 0 says nothing."""
    out = []
    for name, scores in metrics["classes"].items():
        if scores["ground_truth"] == 0:
            out.append([name, *["-"] * (1 + len(ERRORS)), "none"])
        else:
            out.append([name, *(_decimals(scores[c]) for c in ("AP", *ERRORS)), str(scores["ground_truth"])])
    total = sum(scores["ground_truth"] for scores in metrics["classes"].values())
    out.append(["mean", _decimals(metrics["mAP"]), *(_decimals(metrics[f"m{e}"]) for e in ERRORS), str(total)])
    return out


def summary_line(metrics: dict) -> str:
    """mAP and NDS in one line, and what lowers them unseen: classes without ground truth, no predictions at all."""
    line = f"mAP {metrics['mAP']:.4f}, NDS {metrics['NDS']:.4f} on {metrics['split']} ({metrics['samples']} samples)"
    missing = [name for name, scores in metrics["classes"].items() if scores["ground_truth"] == 0]
    if missing:
        line += f"; no ground truth for {', '.join(missing)}: the official mean counts AP 0 there"
    if metrics["predictions"] == 0:
        line += "; nothing was predicted at all, which scores zero"
    return line


def markdown(metrics: dict) -> str:
    """The per-class table in Markdown, with the summary line above it."""
    lines = [COLUMNS, ["---", *["---:"] * (len(COLUMNS) - 1)], *rows(metrics)]
    return summary_line(metrics) + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def text(metrics: dict) -> str:
    """The per-class table in aligned columns for a terminal or log, with the summary line below it."""
    table = [list(COLUMNS), *rows(metrics)]
    widths = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
    aligned = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))])
        for line in table
    ]
    return "\n".join([*aligned, summary_line(metrics)]) + "\n"


def comparison(arms: dict[str, dict]) -> str:
    """Results side by side in Markdown: one column an arm; of two arms, the first's gain over the second too."""
    names = list(arms)
    keys = ["mAP", "NDS", *(f"m{e}" for e in ERRORS)]
    values = {key: [arms[n][key] for n in names] for key in keys}
    values |= {f"AP {c}": [arms[n]["classes"][c]["AP"] for n in names] for c in arms[names[0]]["classes"]}
    return compared(names, values)


def compared(names: list[str], values: dict[str, list[float | None]]) -> str:
    """Figures of several arms in Markdown, one column an arm; of two, the first's gain over the second too."""
    header = ["", *names]
    lines = {key: list(map(_decimals, line)) for key, line in values.items()}
    if len(names) == 2:
        header.append("gain")
        for key, line in values.items():
            lines[key].append("-" if None in line else f"{line[0] - line[1]:+.4f}")
    return _table(header, lines)


def plain(header: list[str], values: dict[str, list[float | int | None]]) -> str:
    """Named lines of figures in Markdown."""
    shown = {key: [str(v) if isinstance(v, int) else _decimals(v) for v in line] for key, line in values.items()}
    return _table(header, shown)


def _table(header: list[str], lines: dict[str, list[str]]) -> str:
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *([key, *line] for key, line in lines.items())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
