"""The finetune stage's report: what was trained, what it scored, and what pretraining brought."""

from tasks.evaluation import table
from tasks.finetune.config import FinetuneConfig


def report(config: FinetuneConfig, metrics: dict[str, dict | None], train_samples: int, unscored: str) -> str:
    """Markdown. `metrics`: arm -> result of `tasks.evaluation.official.evaluate`; `unscored`: what to say without."""
    height, width = config.image.size
    cells = round(2 * config.bev_range / config.bev_cell)
    lines = [
        "# Camera detector",
        "",
        f"BEVDet, images {height}x{width}, BEV {cells}x{cells} cells of {config.bev_cell:g} m; {train_samples} "
        f"training samples, {config.steps} steps of {config.batch_size}, seed {config.seed}. All arms had the same "
        "seed, data, order, augmentation and budget; `scratch` started without the pretrained backbone.",
        "",
    ]
    scored = {arm: result for arm, result in metrics.items() if result is not None}
    if not scored:
        lines += [unscored, ""]
    if len(scored) > 1:
        lines += ["## Gain", "", table.comparison(scored), "One seed: differences of this size can be chance.", ""]
    for arm, result in scored.items():
        lines += [f"## {arm}", "", table.markdown(result), ""]
    return "\n".join(lines)
