"""From the scores of all runs to the experiment's result: numbers, table and verdict."""

from typing import Any

from flows.experiment.plan import Run
from flows.experiment.statistics import CONFIDENCE, Difference, Spread
from tasks.engine.experiment import TITLES, ExperimentConfig

METRICS = ("NDS", "mAP", "mATE", "mASE", "mAOE", "mAVE", "mAAE")
JUDGED = ("NDS", "mAP")


def summarise(config: ExperimentConfig, scored: list[tuple[Run, dict[str, float]]]) -> dict[str, Any]:
    """JSON-able: `scores` of every run, `spread` of every arm, `over_first` of every arm but the first, `verdict`, and
    whether the scores are the `official` ones."""
    rows, gains = [], []
    for fraction in config.fractions:
        of = {
            arm: {m: [s[m] for run, s in scored if (run.arm, run.fraction) == (arm, fraction)] for m in METRICS}
            for arm in config.arms
        }
        base = config.arms[0]
        for arm in config.arms:
            spread = {metric: Spread.of(values)._asdict() for metric, values in of[arm].items()}
            rows.append({"fraction": fraction, "arm": arm, "title": TITLES[arm]} | spread)
        for arm in config.arms[1:]:
            over = {metric: Difference.of(of[arm][metric], of[base][metric])._asdict() for metric in JUDGED}
            gains.append({"fraction": fraction, "arm": arm, "base": base} | over)
    scores = [
        {"arm": run.arm, "fraction": run.fraction, "seed": run.seed} | {m: s[m] for m in METRICS} for run, s in scored
    ]
    verdict = [_sentence(config, gain, rows) for gain in gains]
    return {
        "confidence": CONFIDENCE,
        "official": not any(s.get("own_classes") for _, s in scored),
        "scores": scores,
        "spread": rows,
        "over_first": gains,
        "verdict": verdict,
    }


def _sentence(config: ExperimentConfig, gain: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """What an arm's NDS says against the first arm's at one fraction, and how surely."""
    named = {row["arm"]: row["NDS"] for row in rows if row["fraction"] == gain["fraction"]}
    arm, base, d = named[gain["arm"]], named[gain["base"]], gain["NDS"]
    if d["low"] > 0:
        what = "better, and not by the luck of these seeds"
    elif d["high"] < 0:
        what = "worse, and not by the luck of these seeds"
    else:
        what = "not told apart: the interval holds 0"
    return (
        f"At {gain['fraction']:.0%} of the labels {TITLES[gain['arm']]} has NDS {arm['mean']:.4f} +- {arm['std']:.4f}, "
        f"{TITLES[gain['base']]} {base['mean']:.4f} +- {base['std']:.4f} ({config.seeds} seeds): {d['mean']:+.4f}, "
        f"{CONFIDENCE:.0%} interval {d['low']:+.4f} to {d['high']:+.4f}. It is {what}. "
        f"Its worst seed is {'above' if d['apart'] else 'not above'} the other's best."
    )


def table(result: dict[str, Any]) -> str:
    """One row an arm and fraction: mean and sample standard deviation, and the range of NDS."""
    header = ("labels", "arm", "NDS", "NDS, range", *METRICS[1:])
    lines = [header, ("---:", "---", *["---:"] * (len(header) - 2))]
    for row in result["spread"]:
        cells = [f"{row[m]['mean']:.4f} +- {row[m]['std']:.4f}" for m in METRICS]
        cells.insert(1, f"{row['NDS']['low']:.4f} to {row['NDS']['high']:.4f}")
        lines.append((f"{row['fraction']:.0%}", row["title"], *cells))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def report(config: ExperimentConfig, result: dict[str, Any]) -> str:
    """The experiment in Markdown: verdict, table, every run, and what made it."""
    seeds = "of pretraining and finetuning alike" if config.pretrain_seeds else "of finetuning; pretrained once an arm"
    unknown = "geomim's own: the devkit does not know the categories that ingest.classes maps"
    whose = "the official ones on val" if result["official"] else unknown
    lines = ["# Does pretraining pay?", "", *(f"- {sentence}" for sentence in result["verdict"]), "", table(result)]
    lines += [
        f"Mean and sample standard deviation over {config.seeds} seeds ({seeds}). The interval is Student's, of the",
        f"differences seed by seed. Scores are {whose}. Every arm has the same detector, labels,",
        "order, augmentation and steps of finetuning; pretraining's own steps come on top.",
        "",
        "| labels | arm | seed | NDS | mAP |",
        "| ---: | --- | ---: | ---: | ---: |",
    ]
    for s in result["scores"]:
        lines.append(f"| {s['fraction']:.0%} | {TITLES[s['arm']]} | {s['seed']} | {s['NDS']:.4f} | {s['mAP']:.4f} |")
    lines += ["", "```", *(f"{name}: {value}" for name, value in result["made"].items()), "```", ""]
    return "\n".join(lines)
