"""The options that several commands of `geomim` share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="A YAML file, such as configs/demo.yaml.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="One value on top, such as depth.sweeps=2. Repeatable.", metavar="A.B=C"),
]
Root = Annotated[
    Path, typer.Option("--root", envvar="GEOMIM_ROOT", help="Where artifacts live.", show_default="./artifacts")
]
Dataroot = Annotated[Path | None, typer.Option("--dataroot", help="A folder in nuScenes format.", show_default=False)]
Version = Annotated[
    str | None, typer.Option("--version", help="Its tables, such as v1.0-trainval.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Processes = Annotated[
    int | None,
    typer.Option("--nproc", help="Processes that share each step, one a GPU.", min=1, show_default=False),
]
PublicConfig = Annotated[
    Path | None,
    typer.Option(
        "--public-config",
        help="The public config of --checkpoint, where shapes do not tell all: its Python file, JSON or YAML.",
        metavar="FILE",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Run it although it is cached.")]
DEFAULT_ROOT = Path("artifacts")
