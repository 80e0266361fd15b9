"""The commands about what is stored: `geomim verify`, `repair`, `du`, `gc`, `pin`, `cp`, `push` and `pull`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.options import DEFAULT_ROOT, AsJson, Dataroot, Root, Version

What = Annotated[
    list[str] | None,
    typer.Argument(help="Artifacts' folders, or stages such as teacher; all of the root by default.", metavar="WHAT"),
]
ArtifactFolder = Annotated[Path, typer.Argument(help="An artifact's folder.", metavar="ARTIFACT")]


def verify(
    what: What = None,
    all_artifacts: Annotated[bool, typer.Option("--all", help="All artifacts of the root, as without WHAT.")] = False,
    sample: Annotated[
        int | None,
        typer.Option(help="Of stores in parts read so many parts, drawn at random.", min=0, show_default=False),
    ] = None,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> None:
    """Read artifacts and check every byte against what was written. Exits with 1 where something is damaged.

    Example: geomim verify teacher --sample 20
    """
    from flows.housekeeping import verify_artifacts

    verify_artifacts(root, what or [], sample, as_json)


def repair(what: What = None, dataroot: Dataroot = None, root: Root = DEFAULT_ROOT) -> None:
    """Make again what is damaged of artifacts: of stores in parts the damaged parts alone.

    Example: geomim repair artifacts/teacher/0123456789abcdef
    """
    from flows.housekeeping import repair_artifacts

    repair_artifacts(root, what or [], dataroot)


def du(root: Root = DEFAULT_ROOT, as_json: AsJson = False) -> None:
    """Show what takes how much room.

    Example: geomim du
    """
    from flows.housekeeping import show_sizes

    show_sizes(root, as_json)


def gc(
    configs: Annotated[
        list[Path] | None,
        typer.Option("--config", "-c", help="Keep what this config needs. Repeatable.", show_default=False),
    ] = None,
    days: Annotated[
        float, typer.Option("--newer-than", help="Keep what is newer than so many days.", min=0, metavar="DAYS")
    ] = 7.0,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it. Without, nothing is touched.")] = False,
    dataroot: Dataroot = None,
    version: Version = None,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> None:
    """Show, and with --delete remove, what nobody needs.

    That is what killed runs left; and, where a config is given, every artifact that no such config, no pin and no newer
    artifact needs. What somebody works on or reads stays.

    Example: geomim gc --config configs/nuscenes-mini.yaml --dataroot /data/nuscenes
    """
    from flows.housekeeping import collect_garbage

    collect_garbage(root, configs or [], days, delete, dataroot, version, as_json)


def pin(
    artifact: Annotated[
        Path | None, typer.Argument(help="An artifact's folder; without, all pins are shown.", metavar="ARTIFACT")
    ] = None,
    note: Annotated[str, typer.Option(help="Why.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take the pin away.")] = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Keep an artifact, and all that it was made from, from `geomim gc`.

    Example: geomim pin artifacts/pretrain/0123456789abcdef --note "the paper's table 2"
    """
    from flows.housekeeping import pin_artifact

    pin_artifact(root, artifact, note, remove)


def cp(
    source: Annotated[Path, typer.Argument(help="An artifact's folder, a stage's, or a root.", metavar="SRC")],
    target: Annotated[Path, typer.Argument(help="The root to copy to; made where it is not there.", metavar="DST")],
    inputs: Annotated[bool, typer.Option("--inputs", help="With all that it was made from.")] = False,
) -> None:
    """Copy finished artifacts to another root, every byte checked; interrupted, the same command goes on.

    Example: geomim cp artifacts/teacher/0123456789abcdef /mnt/shared/artifacts --inputs
    """
    from flows.housekeeping import copy_artifacts

    copy_artifacts(source, target, inputs)


ObjectRoot = Annotated[
    str, typer.Argument(help="s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX.", metavar="URL")
]
Inputs = Annotated[bool, typer.Option("--inputs", help="With all that it was made from.")]


def push(
    what: Annotated[
        str,
        typer.Argument(help="An artifact's folder or key, a stage, or a root's folder for all of it.", metavar="WHAT"),
    ],
    url: ObjectRoot,
    inputs: Inputs = False,
    force: Annotated[bool, typer.Option("--force", help="Send it in place of what is there.")] = False,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> None:
    """Send finished artifacts to an object store, every byte checked; interrupted, the same command goes on.

    Example: geomim push artifacts/teacher/0123456789abcdef s3://bucket/artifacts --inputs
    """
    from flows.transfers import push_artifacts

    push_artifacts(what, url, inputs, force, root, as_json)


def pull(
    what: Annotated[str, typer.Argument(help="An artifact's key, a stage, or all.", metavar="WHAT")],
    url: ObjectRoot,
    inputs: Inputs = False,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> None:
    """Bring finished artifacts from an object store, every byte checked; interrupted, the same command goes on.

    Example: geomim pull 0123456789abcdef s3://bucket/artifacts --inputs
    """
    from flows.transfers import pull_artifacts

    pull_artifacts(what, url, inputs, root, as_json)


COMMANDS = (verify, repair, du, gc, pin, cp, push, pull)
