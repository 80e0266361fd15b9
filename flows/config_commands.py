"""The commands about configs: `geomim config show`, `schema` and `init`, and `geomim diff`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.options import DEFAULT_ROOT, AsJson, ConfigFile, Dataroot, Overrides, Root, Version

app = typer.Typer(help="A config: its values, its schema, and a file to start from.", no_args_is_help=True)


@app.command()
def show(
    config: ConfigFile = None,
    overrides: Overrides = None,
    dataroot: Dataroot = None,
    version: Version = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only what differs from the defaults.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the resolved config as YAML, and where each value came from: default, a preset, the file or an option.

    What is printed is a config itself, which loads as the same.

    Example: geomim config show --config configs/demo.yaml --set depth.margin=2 --changed
    """
    from flows.config_show import show_config

    show_config(config, overrides, dataroot, version, changed, as_json)


@app.command()
def schema() -> None:
    """Print the JSON schema of a config, with which an editor completes, explains and checks it.

    Save it, and begin a YAML file with the line: # yaml-language-server: $schema=geomim.schema.json

    That is for editors with yaml-language-server: VS Code's YAML extension, Neovim, Emacs, Helix.

    Example: geomim config schema > geomim.schema.json
    """
    from flows.config_schema import config_schema
    from flows.show import print_json

    print_json(config_schema())


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="The YAML file to write; must not exist.", metavar="FILE")],
    dataroot: Dataroot = None,
    version: Version = None,
) -> None:
    """Write a config to start from, with the values that one would change first and what each is.

    It fits what is found in --dataroot: versions, train samples, the size of images, categories of the data's own.

    Example: geomim config init my.yaml --dataroot /data/mine --version v1.0-trainval
    """
    from flows.config_init import write_start

    write_start(file, dataroot, version)


def diff(
    a: Annotated[str, typer.Argument(help="An artifact's folder, a YAML file or a preset's name.", metavar="A")],
    b: Annotated[str, typer.Argument(help="Another of the same kind.", metavar="B")],
    dataroot: Dataroot = None,
    version: Version = None,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> None:
    """Show in what two artifacts of one stage, or two configs, differ, field by field.

    Of configs the resolved values and, where there is a dataroot, the stages that get another key.

    Exits as diff does: 0 where they are equal, 1 where they differ, 2 where they cannot be compared. Artifacts are
    equal if what decides the result is, and every byte that is computed with; how they were made is shown alone.

    Example: geomim diff geomim-swin-b my.yaml --dataroot /data/nuscenes
    """
    from flows.diff import differences
    from flows.diff_show import show_differences
    from flows.show import print_json

    equal, head, sections = differences(a, b, dataroot, version, root)
    if as_json:
        unknown = {"keys": None} if head.get("keys_unknown") else {}
        print_json(head | {"equal": equal} | sections | unknown)
    else:
        show_differences(equal, head, sections)
    raise typer.Exit(0 if equal else 1)


COMMANDS = (diff,)
