"""The one way to run a step: on inputs that are whole, going on from what is there, once; in parts, together."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.progress import say
from storage.artifact import Artifact
from storage.damage import ASIDE, set_aside
from storage.leases import Changed
from storage.lock import Busy, locked
from storage.manifest import Manifest
from storage.sentences import in_sentences
from storage.stores import is_part_store, mend
from tasks.engine.crew import take_or_leave
from tasks.engine.device_lock import device_alone
from tasks.engine.integrity import check_artifact, check_file
from tasks.engine.mirrored import bring_for_parts, elsewhere, mirrored, part_leases, send_finished, waiting, what
from tasks.engine.provenance import provenance
from tasks.engine.stage import Step


def execute(step: Step, force: bool = False) -> Manifest:
    """Run a step, or take its artifact where it is whole already. Raises UserError for what a user can mend.

    One process at a time works on an artifact: another one waits, and takes the result. But a stage in parts is worked
    on by all who come. An interrupted one's work is taken up. What is damaged is moved aside, or, where it is parts of
    a store, made again in its place. force: delete what is there first, when nobody works on it or reads it.
    """
    artifact = step.artifact
    with ExitStack() as stack, in_sentences(artifact.path, "what is done is kept: ", elsewhere(step)):
        if step.stage.in_parts:
            return _together(step, force)
        stack.enter_context(mirrored(step, force))
        stack.enter_context(locked(artifact.path, what(step), waiting=waiting(step)))
        if not force and (manifest := _intact(artifact)):
            return manifest
        stack.enter_context(_inputs_held(step))
        stack.enter_context(device_alone(step))  # last: who has it waits for nobody, and what is cached needs none
        _clear(step, force)
        start = time.monotonic()
        artifact.begin(step.recipe, step.inputs.artifacts)
        summary = step.stage.run(step.config, step.inputs, artifact)
        return _finish(step, summary, start)


def _together(step: Step, force: bool) -> Manifest:
    """Work on a stage in parts, alone or beside others who do; the last to be done finishes it."""
    artifact, name = step.artifact, step.stage.name
    while True:
        bring_for_parts(step, force)
        if not force and (manifest := _intact(artifact)):
            send_finished(step)
            return manifest
        with ExitStack() as stack:
            stack.enter_context(_inputs_held(step))
            _begin(step, force)
            force = False
            stack.enter_context(locked(artifact.path, what(step), shared=True, waiting=waiting(step)))
            stack.enter_context(device_alone(step))
            if not artifact.is_begun():  # finished, or removed, by somebody else meanwhile
                continue
            start = time.monotonic()
            try:
                leases = stack.enter_context(part_leases(step))
                more = step.stage.write_parts(step.config, step.inputs, artifact, leases)
                if not take_or_leave(leases, name, artifact.has_manifest):
                    continue
            except Changed as changed:
                say(f"{name}: {changed}; looks at it again")
                continue
            summary = step.stage.run(step.config, step.inputs, artifact)
            manifest = _finish(step, summary | more, start)
            leases.finished()
            return manifest


def _begin(step: Step, force: bool) -> None:
    """Make the folder ready for all who will work there, unless somebody works there already."""
    artifact, name = step.artifact, step.stage.name
    patient = force or artifact.has_manifest()  # what is damaged is not gone on with while others read it
    try:
        with locked(artifact.path, what(step), waiting=waiting(step), patient=patient):
            if not force and _intact(artifact):
                return
            _clear(step, force)
            artifact.begin(step.recipe, step.inputs.artifacts)
            for store in artifact.path.glob("*.zarr"):
                for damage in mend(store):
                    say(f"{name}: {damage.path}: {damage.what}; its part is made again")
    except Busy:
        pass


@contextmanager
def _inputs_held(step: Step) -> Iterator[None]:
    """Inside, nobody removes what the step reads, which was checked."""
    with ExitStack() as stack:
        for needed in step.inputs.artifacts.values():
            command = f"geomim {step.stage.name}"
            stack.enter_context(locked(needed.path, command, shared=True, waiting=waiting(step)))
            check_input(step, needed)
        for field, file in step.config.external_files().items():
            check_file(file, f"{step.stage.name}.{field} is {file}")
        yield


def _clear(step: Step, force: bool) -> None:
    """Make room where something finished stands, which is damaged or is to be made again."""
    if force:
        step.artifact.remove()
    elif step.artifact.has_manifest():
        prepare(step.artifact)


def _finish(step: Step, summary: dict[str, Any], start: float) -> Manifest:
    seconds = time.monotonic() - start
    return step.artifact.finish(step.recipe, summary, seconds, provenance(step), step.stage.outputs)


def check_input(step: Step, needed: Artifact) -> None:
    """Raise UserError where an input is not there, DataError where what is cheap to read of it is damaged."""
    if not needed.has_manifest():
        raise UserError(
            f"{step.stage.name} needs the {needed.stage} artifact ({needed.path}): run `geomim {needed.stage}` first"
        )
    check_artifact(needed, f"{step.stage.name} needs the {needed.stage} artifact")


def prepare(artifact: Artifact) -> None:
    """Make room for a new result where a finished one is damaged.

    Stores in parts stay, without the manifest, for their stage to mend: it looks at each part and makes the damaged
    ones again. Anything else is moved aside as a whole.
    """
    damages = [damage for damage in artifact.damages("small") if damage.matters]
    listed = "; ".join(map(str, damages[:3])) + ("; ..." if len(damages) > 3 else "")
    if not any(is_part_store(store) for store in artifact.path.glob("*.zarr")):
        aside = artifact.set_aside()
        say(f"{artifact.stage}: {artifact.path} is damaged ({listed}); it is kept as {aside.name} and made again")
        return
    say(f"{artifact.stage}: {artifact.path} is damaged ({listed}); what is damaged of it is made again")
    artifact.unfinish()
    for damage in damages:
        if not is_part_store(artifact.path / Path(damage.name).parts[0]):
            put_aside(artifact.path / damage.name)


def put_aside(path: Path) -> None:
    """Out of the way of what is made again, under a name that says so."""
    if path.exists():
        set_aside(path)


def _intact(artifact: Artifact) -> Manifest | None:
    """The manifest of a whole artifact; what is of no consequence is said."""
    if not artifact.has_manifest():
        return None
    damages = list(artifact.damages("small"))
    if any(damage.matters for damage in damages):
        return None
    for damage in damages:
        say(f"{artifact.stage}: {artifact.path}/{damage}, with which nobody computes: the result is used as it is")
    for name in [name for name in artifact.extras() if ASIDE not in name][:3]:
        say(f"{artifact.stage}: {artifact.path}/{name} is no file of geomim's; it is left alone")
    return artifact.manifest()
