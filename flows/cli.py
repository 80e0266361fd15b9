"""`geomim`: the command line. Planning, `status` and `inspect` import neither torch nor Prefect."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from common.errors import DataError, FileSystemError, StageFailed, UserError
from common.garbage import leave_unsearched
from common.launcher import is_follower
from flows import config_commands, look_commands, stage_commands, store_commands
from flows.export import Layout
from flows.import_command import import_command
from flows.options import (
    DEFAULT_ROOT,
    AsJson,
    ConfigFile,
    Dataroot,
    Overrides,
    Root,
    Version,
)
from flows.view import view
from storage.sentences import in_sentences
from tasks.engine.child import again

INTERRUPTED = 130
SECONDS_TO_TELL = 3.0  # for rank 0, of what all ranks know

app = typer.Typer(
    name="geomim",
    help="Cached, staged pretraining of camera backbones from LiDAR (GeoMIM) on data in nuScenes format.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    config: ConfigFile = None,
    overrides: Overrides = None,
    root: Root = DEFAULT_ROOT,
    dataroot: Dataroot = None,
    version: Version = None,
    first: Annotated[str | None, typer.Option("--from", help="The first stage to run.", metavar="STAGE")] = None,
    last: Annotated[str | None, typer.Option("--to", help="The last stage to run.", metavar="STAGE")] = None,
    force: Annotated[
        list[str] | None, typer.Option(help="Run this stage although it is cached. Repeatable.", metavar="STAGE")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and why; run nothing.")] = False,
) -> None:
    """Run the stages that are not cached, in order, as one Prefect flow.

    Example: geomim run --config configs/demo.yaml --set depth.sweeps=2 --dry-run
    """
    from flows.launched import refuse_launched
    from flows.local import run_pipeline
    from flows.report_command import config_options, report_command
    from tasks.engine.config import load_config

    refuse_launched("run")
    settings = load_config(config, overrides, dataroot, version)
    run_pipeline(settings, root, first, last, force or [], dry_run)
    if not dry_run:
        print(
            f"\n{report_command(config_options(config, overrides, root, dataroot, version))}  # all of it on one page"
        )


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="The folder to write; must be empty or not exist.", metavar="OUT")],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Write a simulated world as a dataset in nuScenes format.

    Example: geomim simulate data/world --set simulate.keyframes=8
    """
    from simulate.config import SimulateConfig
    from simulate.write import simulate as write_world
    from tasks.engine.config import load_config

    summary = write_world(load_config(config, overrides).simulate or SimulateConfig(), out)
    print(json.dumps({"path": str(out), **summary}, indent=2))


for stage_command in stage_commands.COMMANDS:
    app.command()(stage_command)


experiment = typer.Typer(help="Experiments: many runs of the pipeline, compared.", no_args_is_help=True)
app.add_typer(experiment, name="experiment")


@experiment.command()
def gain(
    seeds: Annotated[
        int | None, typer.Option(help="Runs of each arm; sets experiment.seeds.", min=2, show_default=False)
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(
            help="Of scratch, pixels, geomim, no-cross-view, no-geometry-branch, mim4d, unipad, geomim+mim4d; "
            "sets experiment.arms.",
            metavar="A,B,...",
            show_default=False,
        ),
    ] = None,
    fractions: Annotated[
        str | None,
        typer.Option(
            help="Shares of the labels, such as 0.1,0.5,1; sets experiment.fractions.",
            metavar="F,...",
            show_default=False,
        ),
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    root: Root = DEFAULT_ROOT,
    dataroot: Dataroot = None,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """Does pretraining pay? The same detector with and without, over seeds and shares of the labels.

    Example: geomim experiment gain --config configs/experiment-gain.yaml --seeds 3
    """
    from flows.launched import refuse_launched
    from flows.local import run_gain
    from tasks.engine.config import load_config

    refuse_launched("experiment gain")
    chosen = [f"experiment.seeds={seeds}"] if seeds else []
    chosen += [f"experiment.{name}=[{value}]" for name, value in (("arms", arms), ("fractions", fractions)) if value]
    run_gain(load_config(config, [*(overrides or []), *chosen], dataroot, version), root, as_json)


@app.command()
def status(
    config: ConfigFile = None,
    overrides: Overrides = None,
    root: Root = DEFAULT_ROOT,
    dataroot: Dataroot = None,
    version: Version = None,
    why: Annotated[bool, typer.Option("--why", help="Say for each stage what makes it run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show which stages are cached, which would go on, and which would run.

    Example: geomim status --config configs/demo.yaml --why
    """
    from flows.show import plan_table, print_json
    from tasks.engine.config import load_config
    from tasks.engine.plan import make_plan
    from tasks.engine.roots import usable_root

    plan = make_plan(load_config(config, overrides, dataroot, version), usable_root(root, to_write=False))
    if as_json:
        print_json([planned.as_json() for planned in plan])
    else:
        plan_table(plan, why)


@app.command()
def export(
    source: Annotated[
        Path, typer.Argument(help="A pretrain artifact's folder, or a checkpoint in any layout.", metavar="SOURCE")
    ],
    out: Annotated[Path, typer.Argument(help="The file to write: .safetensors, or .pth for torch.", metavar="OUT")],
    layout: Annotated[
        Layout,
        typer.Option(
            help="The backbone as geomim, mmdet, bevdet, swin, timm, torchvision, convnext; all as original.",
            metavar="LAYOUT",
        ),
    ],
) -> None:
    """Write pretrained weights in the layout of other people's code.

    docs/checkpoints.md says which code reads which layout.

    Example: geomim export artifacts/pretrain/0123456789abcdef geomim_base.pth --layout bevdet
    """
    from flows.export import export_weights

    export_weights(source, out, layout)


@app.command()
def evaluate(
    results: Annotated[Path, typer.Argument(help="A file in the nuScenes detection format.", metavar="RESULTS.json")],
    dataroot: Annotated[Path, typer.Option("--dataroot", help="A folder in nuScenes format.", show_default=False)],
    version: Annotated[str, typer.Option("--version", help="Its tables, such as v1.0-trainval.", show_default=False)],
    quick: Annotated[
        bool, typer.Option("--quick", help="The same metrics by geomim's own code: minutes faster on all of nuScenes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score a detection results file: the official nuScenes metrics, by class and by distance.

    The split is the one whose samples it holds. For v1.0-test the file is checked alone.

    Example: geomim evaluate results_nusc.json --dataroot data/nuscenes --version v1.0-trainval
    """
    from flows.evaluate import evaluate_file

    evaluate_file(results, dataroot, version, quick, as_json)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check the installation: Python, packages against the lock, devices, disk and the Prefect server.

    Example: geomim doctor
    """
    from flows.doctor import check_all, show_checks
    from flows.show import print_json

    checks = check_all()
    if as_json:
        print_json([vars(check) for check in checks])
    else:
        show_checks(checks)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


app.command(name="import")(import_command)
app.add_typer(config_commands.app, name="config")
for command in (*look_commands.COMMANDS, view, *config_commands.COMMANDS, *store_commands.COMMANDS):
    app.command()(command)


def main() -> None:
    """Run the command line: 0 done, 1 data failed a check or a stage failed, 2 a user's mistake, 130 interrupted."""
    leave_unsearched()
    try:
        with in_sentences():
            app()
    except UserError as error:
        if is_follower():  # rank 0 says the same, if no launcher ends it before, because this one has ended
            time.sleep(SECONDS_TO_TELL)
        else:
            sys.stdout.flush()
            print(f"geomim: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, DataError) else 2)
    except (StageFailed, FileSystemError) as error:
        print(f"geomim: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED and not is_follower():  # Typer makes this of Ctrl-C, without a word
            forced = any(word.startswith("--force") for word in sys.argv)
            print(f"geomim: {again('stopped; the same command goes on from there', forced)}", file=sys.stderr)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


if __name__ == "__main__":
    main()
