"""The finetune stage's report: what was trained, what it scored, and what pretraining brought."""

from typing import Any

from tasks.finetune.config import FinetuneConfig
from tasks.finetune.goals.goal import Goal, goal_of


def report(
    config: FinetuneConfig,
    metrics: dict[str, dict | None],
    train_samples: int,
    unscored: str,
    pictures: list[dict[str, Any]],
) -> str:
    """Markdown.

    metrics: arm -> result of `Goal.evaluate`, None without ground truth; `unscored` is what to say then. pictures: the
    content of `Goal.listing`.
    """
    goal = goal_of(config)
    height, width = config.image.size
    cells = round(2 * config.bev_range / config.bev_cell)
    lines = [
        f"# {goal.title}",
        "",
        f"{family(config)}, images {height}x{width}, BEV {cells}x{cells} cells of {config.bev_cell:g} m; "
        + (_training(config, metrics, train_samples) if config.trains else "a checkpoint, evaluated as it is."),
        "",
    ]
    scored = {arm: result for arm, result in metrics.items() if result is not None}
    if not scored:
        lines += [unscored, ""]
    if len(scored) > 1:
        lines += ["## Gain", "", goal.comparison(scored), "One seed: differences of this size can be chance.", ""]
    for arm, result in scored.items():
        lines += [f"## {arm}", "", goal.table(result), ""]
    if pictures:
        lines += ["## Worst samples", "", *_pictured(goal, pictures), ""]
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


def _pictured(goal: type[Goal], pictures: list[dict[str, Any]]) -> list[str]:
    """A table's lines: why each picture is there."""
    rows = []
    for entry in pictures:
        shown = {name: entry[name] for name in ("picture", "scene", "sample")} | goal.pictured(entry)
        if not rows:
            rows = [f"| {' | '.join(shown)} |", f"|{' --- |' * len(shown)}"]
        rows.append(f"| {' | '.join(shown.values())} |")
    return rows
