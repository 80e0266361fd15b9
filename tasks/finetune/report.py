"""The evaluate stage's report: what was trained, and what it scored."""

from typing import Any

from tasks.finetune.config import FinetuneConfig
from tasks.finetune.goals import goal_of
from tasks.finetune.goals.goal import Goal


def report(
    config: FinetuneConfig,
    metrics: dict[str, Any] | None,
    trained: dict[str, Any] | None,
    unscored: str,
    pictures: list[dict[str, Any]],
) -> str:
    """Markdown.

    metrics: result of `Goal.evaluate`, None without ground truth; `unscored` is what to say then. trained: the summary
    of its training, None of a checkpoint. pictures: the content of `Goal.listing`.
    """
    goal = goal_of(config)
    height, width = config.image.size
    cells = round(2 * config.bev_range / config.bev_cell)
    lines = [
        f"# {goal.title}",
        "",
        f"{family(config)}, images {height}x{width}, BEV {cells}x{cells} cells of {config.bev_cell:g} m; "
        + (_training(config, trained) if trained else "a checkpoint, evaluated as it is."),
        "",
    ]
    lines += [unscored if metrics is None else goal.table(metrics), ""]
    if pictures:
        lines += ["## Worst samples", "", *_pictured(goal, pictures), ""]
    return "\n".join(lines)


def family(config: FinetuneConfig) -> str:
    """The name under which such a detector is known."""
    view = config.view
    name = "BEVStereo" if view.stereo else "BEVDepth" if view.camera_aware else "BEVDet"
    return name + ("4D" if view.frames > 1 else "")


def _training(config: FinetuneConfig, trained: dict[str, Any]) -> str:
    begun = {"random": "random weights", "pretrain": "pretrained weights"}.get(config.init, "the weights of a file")
    told = (
        f"{trained['train_samples']} training samples, {trained['steps']} steps of {config.batch_size} from {begun}, "
        f"seed {config.seed}"
    )
    if skipped := trained.get("skipped_steps"):
        told += f"; {skipped} of these steps were not finite and taught nothing"
    if left_out := trained.get("skip_samples"):
        told += f"; left out by finetune.skip_samples: {', '.join(left_out)}"
    return told + "."


def _pictured(goal: type[Goal], pictures: list[dict[str, Any]]) -> list[str]:
    """A table's lines: why each picture is there."""
    rows: list[str] = []
    for entry in pictures:
        shown = {name: entry[name] for name in ("picture", "scene", "sample")} | goal.pictured(entry)
        if not rows:
            rows = [f"| {' | '.join(shown)} |", f"|{' --- |' * len(shown)}"]
        rows.append(f"| {' | '.join(shown.values())} |")
    return rows
