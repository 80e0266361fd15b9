"""The commands that show what is there: `inspect` and `report`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from common.errors import UserError
from flows.options import DEFAULT_ROOT, AsJson, ConfigFile, Dataroot, Overrides, Root, Version

SampleName = Annotated[
    str | None,
    typer.Option("--sample", help="A sample: its number from 0 up, or the beginning of its token.", metavar="N|TOKEN"),
]


def inspect(
    artifact: Annotated[
        Path, typer.Argument(help="An artifact's folder, a Zarr store in it, or a dataroot.", metavar="ARTIFACT")
    ],
    sample: SampleName = None,
    png: Annotated[
        Path | None, typer.Option("--png", help="Draw the sample into this file (.png, .jpg, .webp).", metavar="FILE")
    ] = None,
    map_name: Annotated[
        str | None,
        typer.Option(
            "--map",
            help="From above, below the boxes: pca, activity or a channel's number of the teacher's map, or none.",
            metavar="MAP",
            show_default=False,
        ),
    ] = None,
    depth: Annotated[
        bool | None, typer.Option("--depth/--no-depth", help="LiDAR points over the images.", show_default=False)
    ] = None,
    score: Annotated[
        float | None,
        typer.Option(
            "--score", help="The least score of a predicted box that is shown.", min=0, max=1, show_default=False
        ),
    ] = None,
    width: Annotated[int, typer.Option("--width", help="Of the picture, px.", min=400, max=8000)] = 1920,
    dark: Annotated[bool, typer.Option("--dark", help="On a dark ground.")] = False,
    dataroot: Annotated[
        Path | None,
        typer.Option("--dataroot", help="Where the images are, if not where they were.", metavar="DIR"),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Of a dataroot with several: which tables.", metavar="V")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what an artifact is, what made it, what it holds and whether its numbers look sound; or one sample of it.

    With --sample and --png: the images with boxes and the view from above; of depth the LiDAR's points over the
    images, of teacher its features in colours, of pretrain what is hidden and rebuilt, of finetune and evaluate what
    was found, missed and made up. A dataroot that was never ingested can be looked at too.

    Example: geomim inspect artifacts/depth/0123456789abcdef --sample 12 --png depth.png
    """
    from flows.inspect import describe, show_description, show_facts
    from flows.show import print_json

    if sample is None:
        if png is not None:
            raise UserError("--png needs --sample N, the sample to draw")
        description = describe(artifact)
        print_json(description) if as_json else show_description(description)
        return
    from gallery.look import Gallery, usual
    from gallery.opened import open_any

    opened = open_any(artifact, dataroot, version)
    gallery, row = Gallery(opened, networks=True), opened.row(sample)
    given = {"score": score, "depth": depth, "theme": "dark" if dark else None, **_map(map_name)}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    look = replace(usual(opened), **changes)
    facts = gallery.facts(row, look.score)
    if png is not None:
        facts["picture"] = str(_drawn(gallery.sheet(row, look, width), png))
    print_json(facts) if as_json else show_facts(facts)


def _map(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    if name.isdecimal():
        return {"map": "channel", "channel": int(name)}
    from gallery.look import MapName

    maps = [other for other in get_args(MapName) if other != "channel"]
    if name not in maps:
        raise UserError(f"--map {name}: there are {', '.join(maps)}, or a channel's number")
    return {"map": name}


def _drawn(picture: Any, path: Path) -> Path:
    try:
        picture.save(path)
    except ValueError:
        raise UserError(f"--png {path}: no picture has such an ending; name a file such as sample.png") from None
    except OSError as error:
        raise UserError(f"--png {path}: cannot be written ({error.strerror or error})") from None
    return path


def report(
    out: Annotated[Path, typer.Option("--out", help="The file to write.", metavar="FILE")] = Path("report.html"),
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
    root: Root = DEFAULT_ROOT,
    dataroot: Dataroot = None,
    version: Version = None,
) -> None:
    """Write one HTML file on a whole run: scores, pictures, curves, data and settings, as far as it got.

    Nothing runs, and the file holds all that it shows: it can be mailed.

    Example: geomim report --config configs/demo.yaml --open
    """
    from flows.report import write_report
    from flows.report_command import config_options
    from tasks.engine.config import load_config

    options = config_options(config, overrides, root, dataroot, version)
    name = config.stem if config else str(dataroot or "defaults")
    write_report(load_config(config, overrides, dataroot, version), root, out, options, name, show)


COMMANDS = (inspect, report)
