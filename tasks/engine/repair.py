"""`geomim repair`: make again what is damaged of an artifact, and no more, from what its manifest says made it."""

from dataclasses import replace
from pathlib import Path

from common.errors import UserError
from common.progress import say
from storage.artifact import Artifact
from storage.atomic import write_json
from storage.damage import Damaged, set_aside
from storage.lock import locked
from storage.manifest import RECIPE, FileDamage, Manifest, read_manifest
from storage.store import check
from storage.stores import is_part_store, open_part_store
from tasks.engine.child import run_in_child
from tasks.engine.execute import check_input, put_aside
from tasks.engine.stage import STAGES, Step


def repair(folder: Path, dataroot: Path | None = None) -> list[FileDamage]:
    """Mend the finished artifact in a folder; what was damaged, nothing if it was whole.

    Of stores in parts the damaged parts are made again, of all else the whole result: then the old one is kept, under a
    name that says what it is. Logs and pictures of a training cannot be made again alone: damaged ones are moved aside.
    dataroot: where the data is now, if not where it was. Raises UserError where it cannot be done.
    """
    folder = folder.absolute()
    try:
        manifest = read_manifest(folder)
    except (Damaged, ValueError) as error:
        what = error.what if isinstance(error, Damaged) else str(error)
        raise UserError(
            f"{folder}: its manifest is damaged ({what}), so nothing says what made it: run "
            f"`geomim {folder.parent.name}` with its config, which moves it aside and makes it again"
        ) from None
    if manifest is None:
        raise UserError(f"{folder}: holds no finished artifact; the command that was making it goes on with it")
    artifact = Artifact(folder.parent.parent, manifest.recipe.stage, manifest.key)
    if artifact.path != folder:
        raise UserError(f"{folder}: was moved aside; name {artifact.path}, or rename it back")
    with locked(folder, "geomim repair", waiting=lambda line: say(f"repair: {line}")):
        damages = check(folder)
        if any(damage.name == RECIPE for damage in damages):  # all that it says stands in the manifest
            write_json(folder / RECIPE, manifest.recipe.model_dump())
        if not (remaining := check(folder)):
            return damages
        if not any(damage.matters for damage in remaining) and not _stores(folder):
            _without(artifact, manifest, remaining)
            return damages
        step = _step(folder, manifest, dataroot)
        for needed in step.inputs.artifacts.values():
            check_input(step, needed)  # before anything is moved
        _make_room(artifact, remaining)
    run_in_child(step)
    return damages


def _stores(folder: Path) -> list[Path]:
    return [store for store in sorted(folder.glob("*.zarr")) if is_part_store(store)]


def _step(folder: Path, manifest: Manifest, dataroot: Path | None) -> Step:
    """The step that made the artifact. Raises UserError where it cannot be done again here."""
    if "step" not in manifest.made:
        raise UserError(f"{folder}: is damaged; `geomim experiment gain` with its config makes it again")
    value = dict(manifest.made["step"])
    stage, version = STAGES.get(value["stage"]), manifest.recipe.version
    if stage is None or stage.version != version:
        commit = manifest.made.get("commit") or "unknown"
        now = stage.version if stage else "none"
        raise UserError(
            f"{folder}: was made by version {version} of {value['stage']}, and this geomim has version {now}: "
            f"repair it with the code of then (commit {commit[:12]}), or run the stage again"
        )
    if dataroot is not None:
        value["dataroot"] = str(dataroot.absolute())
    if not Path(value["dataroot"]).is_dir():
        raise UserError(f"{folder}: was made from {value['dataroot']}, which is not there; add --dataroot DIR")
    return replace(Step.from_json(value, folder.parent.parent), command=f"geomim repair {folder}")


def _make_room(artifact: Artifact, damages: list[FileDamage]) -> None:
    """Take away what is damaged, so that the stage makes it again."""
    if not _stores(artifact.path):
        aside = artifact.set_aside()
        say(f"repair: {artifact.path} is kept as {aside.name} and made again")
        return
    for path in _stores(artifact.path):
        try:
            mended = open_part_store(path).mend()
        except (Damaged, ValueError) as error:
            say(f"repair: {path} cannot be opened ({error}); it is kept as {set_aside(path).name} and made again")
            continue
        for part in mended:
            say(f"repair: {part.path}: {part.what}; its part is made again")
    artifact.unfinish()
    for damage in damages:
        if not is_part_store(artifact.path / Path(damage.name).parts[0]):
            put_aside(artifact.path / damage.name)


def _without(artifact: Artifact, manifest: Manifest, damages: list[FileDamage]) -> None:
    """Move damaged files that nobody computes with aside, and write the manifest without them."""
    for damage in damages:
        file = artifact.path / damage.name
        outcome = f"kept as {set_aside(file).name}" if file.exists() else "gone"
        say(f"repair: {file} cannot be made again alone; it is {outcome}")
    names = {damage.name for damage in damages}
    artifact.rewrite_manifest(
        manifest.model_copy(update={"files": {n: r for n, r in manifest.files.items() if n not in names}})
    )
