"""`geomim import`: logs of other datasets, made a dataroot."""

from pathlib import Path
from typing import Annotated

import typer

from common.amounts import duration
from flows.options import AsJson


def import_command(
    logs: Annotated[
        Path,
        typer.Argument(help="A folder of py123d: its logs, those of a split, or one log.", metavar="LOGS"),
    ],
    out: Annotated[
        Path, typer.Argument(help="The dataroot to write; must be empty, not exist, or be unfinished.", metavar="OUT")
    ],
    rate: Annotated[float, typer.Option("--rate", help="Key frames a second.", min=1, max=20)] = 2.0,
    val: Annotated[
        list[str] | None,
        typer.Option(
            "--val",
            help="A log, or a split of the dataset's, that is for validation; all others train. Repeatable. By default "
            "the splits are the dataset's own.",
            metavar="NAME",
        ),
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option("--leave-out", help="A log to go without. Repeatable.", metavar="LOG")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write another dataset's logs as a dataset in nuScenes format: Argoverse 2, Waymo, nuPlan, PandaSet and others.

    LOGS are what py123d, an optional package, has converted. Interrupted, the same command goes on.

    Example: geomim import data/123d/logs data/argoverse --val av2-sensor_val
    """
    from dataroot.imported.write import import_logs
    from flows.show import print_json

    summary = {"path": str(out), **import_logs(logs, out, rate, val or [], leave_out or [])}
    if as_json:
        print_json(summary)
        return
    splits = ", ".join(f"{count} {split}" for split, count in summary["splits"].items())
    print(
        f"{out} ({summary['tables']}): {summary['scenes']} scenes ({splits}), {summary['samples']:,} samples, "
        f"{summary['sweeps']:,} sweeps, {summary['annotations']:,} boxes, {len(summary['cameras'])} cameras "
        f"({', '.join(summary['cameras'])})  {duration(summary['seconds'])}"
    )
    for label, facts in summary["categories"].items():
        print(f"  {label} -> {facts['category']}: {facts['boxes']:,} boxes")
    for sentence in summary["said"]:
        print(f"- {sentence}")
