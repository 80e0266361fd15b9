"""Steps on a root that mirrors an object root: what they read is brought, what they leave is sent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.progress import say
from storage.artifact import Artifact
from storage.leases import Leases, PartLeases, leases_folder
from storage.mirror import Mirror, mirror_of
from storage.remote_leases import RemoteLeases
from storage.transfer import is_sent
from tasks.engine.stage import Step


@contextmanager
def mirrored(step: Step, force: bool) -> Iterator[None]:
    """Around a step's work: nothing on an ordinary root.

    No other machine works on the step inside. Its artifact is brought first, if the object root has it, else its
    inputs; when the work ends without an error, the artifact is sent. force: it is no longer there from now on.
    """
    mirror = mirror_of(step.artifact.root)
    if mirror is None:
        yield
        return
    with mirror.alone(step.artifact, what(step), waiting(step)) as lease:
        if force:
            mirror.forget(step.artifact, waiting(step))
        _bring(step, mirror, force)
        yield
        mirror.send(step.artifact, lease)


def bring_for_parts(step: Step, force: bool) -> None:
    """Before the parts of a step are worked on, as other machines may do: nothing on an ordinary root.

    Its artifact is brought, if the object root has it, else its inputs. force: neither it nor any of its parts is there
    when this returns.
    """
    mirror = mirror_of(step.artifact.root)
    if mirror is None:
        return
    if force:
        with mirror.alone(step.artifact, what(step), waiting(step)):
            mirror.forget(step.artifact, waiting(step))
    _bring(step, mirror, force)


def send_finished(step: Step) -> None:
    """Have the object root, where there is one, have what was finished here before."""
    mirror = mirror_of(step.artifact.root)
    if mirror is not None and not is_sent(step.artifact.path):
        with mirror.alone(step.artifact, what(step), waiting(step)) as lease:
            mirror.send(step.artifact, lease)


@contextmanager
def part_leases(step: Step) -> Iterator[PartLeases]:
    """The leases of a step's parts, where all who work on them find them. Raises Changed."""
    mirror = mirror_of(step.artifact.root)
    if mirror is None:
        with Leases(leases_folder(step.artifact.path), what(step)) as leases:
            yield leases
        return
    with RemoteLeases(mirror, step.artifact, what(step), waiting(step)) as remote_leases:
        yield remote_leases


def bring(artifact: Artifact) -> None:
    """Have a cached artifact here, but for the shards of its stores, where an object root has it alone."""
    if mirror := mirror_of(artifact.root):
        mirror.bring(artifact)


def what(step: Step) -> str:
    """What works on it, for those who wait."""
    return step.command or f"geomim {step.stage.name}"


def waiting(step: Step) -> Callable[[str], None]:
    """Says for whom it waits."""
    return lambda line: say(f"{step.stage.name}: {line}")


def elsewhere(step: Step) -> str:
    """What to choose where the root cannot be written."""
    return "another GEOMIM_CACHE" if mirror_of(step.artifact.root) else "another --root"


def _bring(step: Step, mirror: Mirror, force: bool) -> None:
    """The artifact, or else what it is made from."""

    def came(artifact: Artifact) -> None:
        say(f"{step.stage.name}: brings {artifact.stage} {artifact.key[:16]} from {mirror.remote.url}")

    if not force:
        mirror.bring(step.artifact, came, waiting(step))
    if force or not step.artifact.is_intact():
        for needed in step.inputs.artifacts.values():
            mirror.bring(needed, came, waiting(step))
