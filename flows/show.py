"""What the command line prints: tables on a terminal and in a pipe alike, colour only on a terminal."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from common.amounts import size
from evaluation.table import gain, main_scores
from tasks.engine.config import PipelineConfig
from tasks.engine.dag import BASELINE
from tasks.engine.integrity import check_file
from tasks.engine.mirrored import bring
from tasks.engine.plan import Planned

REPORT = "report.md"  # of a stage, for people
STATE_STYLE = {"cached": "green", "running": "blue", "resume": "yellow", "run": "cyan"}


def console() -> Console:
    """Standard output; a pipe gets wide lines, so that no value is cut."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=160)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def plan_table(plan: list[Planned], why: bool = True) -> None:
    """One row a stage: its state, its size and folder, and why it would run."""
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "state", "size", "key", *(["why"] if why else [])):
        table.add_column(column, overflow="fold")
    for planned in plan:
        row = planned.as_json()
        state = f"[{STATE_STYLE[planned.state]}]{planned.state}[/]"
        cells = [planned.name, state, size(row["bytes"]), (row["key"] or "-")[:16]]
        table.add_row(*cells, *([planned.why] if why else []))
    console().print(table)


def show_results(config: PipelineConfig, plan: list[Planned], names: set[str]) -> None:
    """Each node's folder, the report of the detector that the run is about, or else the last, and the gain.

    Raises DataError where what is to be shown is not what was written.
    """
    out = console()
    reports, metrics = {}, {}
    for planned in plan:
        if planned.name not in names or planned.state != "cached":
            continue
        artifact = planned.ready().artifact
        bring(artifact)
        manifest = artifact.finished()
        facts = manifest.summary
        scores = "".join(f"  {name} {score:.4f}" for name, score in main_scores(facts).items())
        out.print(
            f"[green]{planned.name:16}[/] {size(manifest.bytes):>9} {manifest.seconds:8.1f} s{scores}  {artifact.path}",
            soft_wrap=True,
        )
        if (artifact.path / REPORT).is_file():
            reports[planned.name] = artifact.path / REPORT
        if planned.stage.name == "evaluate":
            arm = "baseline" if planned.name.endswith(BASELINE) else "pretrained"
            metrics[arm] = json.loads(_checked_text(artifact.path / "metrics.json"))
    if reports:
        from rich.markdown import Markdown

        out.print()
        out.print(Markdown(_checked_text(reports.get("evaluate") or list(reports.values())[-1])))
        if len(metrics) > 1 and None not in metrics.values():
            out.print(Markdown(gain(metrics, config.finetune.seed)))


def _checked_text(file: Path) -> str:
    check_file(file, f"{file.name} is to be shown")
    return file.read_text()
