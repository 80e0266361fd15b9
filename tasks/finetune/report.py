"""The finetune stage's report: what was trained, what it scored, and what pretraining brought."""

from typing import Any

from tasks.evaluation import table
from tasks.finetune.config import FinetuneConfig


def report(
    config: FinetuneConfig,
    metrics: dict[str, dict | None],
    train_samples: int,
    unscored: str,
    pictures: list[dict[str, Any]],
) -> str:
    """Markdown.

    metrics: arm -> result of `tasks.evaluation.official.evaluate`, None without ground truth; `unscored` is what to say
    then. pictures: the content of `detections.json`.
    """
    height, width = config.image.size
    cells = round(2 * config.bev_range / config.bev_cell)
    lines = [
        "# Camera detector",
        "",
        f"{family(config)}, images {height}x{width}, BEV {cells}x{cells} cells of {config.bev_cell:g} m; "
        + (_training(config, metrics, train_samples) if config.trains else "a checkpoint, evaluated as it is."),
        "",
    ]
    scored = {arm: result for arm, result in metrics.items() if result is not None}
    if not scored:
        lines += [unscored, ""]
    if len(scored) > 1:
        lines += ["## Gain", "", table.comparison(scored), "One seed: differences of this size can be chance.", ""]
    for arm, result in scored.items():
        lines += [f"## {arm}", "", table.markdown(result), ""]
    if pictures:
        lines += ["## Worst samples", "", *_pictured(pictures), ""]
    return "\n".join(lines)


def family(config: FinetuneConfig) -> str:
    """The name under which such a detector is known."""
    view = config.view
    name = "BEVStereo" if view.stereo else "BEVDepth" if view.camera_aware else "BEVDet"
    return name + ("4D" if view.frames > 1 else "")


def _training(config: FinetuneConfig, metrics: dict[str, dict | None], train_samples: int) -> str:
    told = f"{train_samples} training samples, {config.steps} steps of {config.batch_size}, seed {config.seed}."
    if len(metrics) > 1:
        told += " All arms had the same seed, data, order, augmentation and budget; `scratch` began at random."
    return told


def _pictured(pictures: list[dict[str, Any]]) -> list[str]:
    """A table's lines: why each picture is there."""
    rows = ["| picture | scene | sample | missed | false |", "| --- | --- | --- | --- | --- |"]
    for entry in pictures:
        named = [", ".join(f"{n} {name}" for name, n in entry[kind].items()) or "-" for kind in ("missed", "false")]
        rows.append(f"| {entry['picture']} | {entry['scene']} | {entry['sample']} | {' | '.join(named)} |")
    return rows
