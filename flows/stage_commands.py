"""The commands of the stages, each of which runs one without a server."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from common.errors import UserError
from common.launcher import launched
from flows.options import (
    DEFAULT_ROOT,
    ConfigFile,
    Dataroot,
    Force,
    Overrides,
    Processes,
    PublicConfig,
    Root,
    Version,
)


def _run_stage(
    name: str,
    config: Path | None,
    overrides: list[str] | None,
    root: Path,
    dataroot: Path | None,
    version: str | None,
    force: bool,
) -> None:
    from flows.launched import run_launched
    from flows.local import run_stage
    from tasks.engine.config import load_config

    load = partial(load_config, config, overrides, dataroot, version)
    if place := launched():
        run_launched(place, name, load, root, force)
    else:
        run_stage(load(), root, name, force)


def _plain(name: str, title: str) -> Callable[..., None]:
    """The command of a stage that has no options of its own."""

    def command(
        config: ConfigFile = None,
        overrides: Overrides = None,
        root: Root = DEFAULT_ROOT,
        dataroot: Dataroot = None,
        version: Version = None,
        force: Force = False,
    ) -> None:
        _run_stage(name, config, overrides, root, dataroot, version, force)

    command.__name__, command.__doc__ = name, f"{title}\n\nExample: geomim {name} --config configs/demo.yaml"
    return command


def ingest(
    deep: Annotated[
        bool, typer.Option("--deep", help="Decode every image and read every point cloud too; sets ingest.deep.")
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
    root: Root = DEFAULT_ROOT,
    dataroot: Dataroot = None,
    version: Version = None,
    force: Force = False,
) -> None:
    """Check a dataroot and write the index of its samples (no server).

    With --deep what was looked at is kept: an interrupted check goes on, and a later one looks at new files alone.

    Example: geomim ingest --config configs/demo.yaml
    """
    chosen = ["ingest.deep=true"] if deep else []
    _run_stage("ingest", config, [*(overrides or []), *chosen], root, dataroot, version, force)


fit = _plain("fit", "Train the LiDAR detector that serves as teacher (no server).")


def teacher(
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A BEVFusion LiDAR checkpoint (mmdetection3d's or MIT's) or a fitted detector; sets teacher.weights.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    public_config: PublicConfig = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    root: Root = DEFAULT_ROOT,
    dataroot: Dataroot = None,
    version: Version = None,
    force: Force = False,
) -> None:
    """Cache the LiDAR teacher's BEV features (no server).

    Example: geomim teacher --checkpoint lidar-only-det.pth --dataroot data/nuscenes --version v1.0-trainval
    """
    chosen = [f"teacher.weights={json.dumps(str(checkpoint))}"] if checkpoint else []
    chosen += [f"teacher.public_config={json.dumps(str(public_config))}"] if public_config else []
    _run_stage("teacher", config, [*(overrides or []), *chosen], root, dataroot, version, force)


depth = _plain("depth", "Cache the LiDAR points seen by each camera (no server).")


def pretrain(
    nproc: Processes = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    root: Root = DEFAULT_ROOT,
    dataroot: Dataroot = None,
    version: Version = None,
    force: Force = False,
) -> None:
    """Pretrain the camera backbone on the caches (no server).

    Example: geomim pretrain --config configs/geomim-swin-b.yaml --nproc 8
    """
    chosen = [f"pretrain.ranks={nproc}"] if nproc else []
    _run_stage("pretrain", config, [*(overrides or []), *chosen], root, dataroot, version, force)


def finetune(
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Begin with the backbone in this file; sets finetune.init.", metavar="FILE", show_default=False
        ),
    ] = None,
    eval_only: Annotated[
        bool,
        typer.Option("--eval-only", help="Train nothing: evaluate the detector in --checkpoint, BEVDet's or ours."),
    ] = False,
    public_config: PublicConfig = None,
    nproc: Processes = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    root: Root = DEFAULT_ROOT,
    dataroot: Dataroot = None,
    version: Version = None,
    force: Force = False,
) -> None:
    """Finetune and evaluate the camera detector (no server).

    Example: geomim finetune --config configs/released/bevdet4d-geomim.yaml --eval-only --checkpoint epoch_20_ema.pth
    """
    if eval_only and checkpoint is None:
        raise UserError("--eval-only needs --checkpoint FILE, the detector to evaluate")
    field = "evaluate.checkpoint" if eval_only else "finetune.init"
    chosen = [f"{field}={json.dumps(str(checkpoint))}"] if checkpoint else []
    if public_config:
        if not eval_only:
            raise UserError("--public-config needs --eval-only and --checkpoint, the detector that it describes")
        chosen.append(f"evaluate.public_config={json.dumps(str(public_config))}")
    chosen += [f"finetune.ranks={nproc}"] if nproc else []
    _run_stage("finetune", config, [*(overrides or []), *chosen], root, dataroot, version, force)


COMMANDS = (ingest, fit, teacher, depth, pretrain, finetune)
