"""Steps on a root that mirrors an object root: what they read is brought, what they leave is sent."""

from collections.abc import Iterator
from contextlib import contextmanager

from common.progress import say
from storage.artifact import Artifact
from storage.mirror import mirror_of
from storage.sentences import in_sentences
from tasks.engine.stage import Step


@contextmanager
def mirrored(step: Step, force: bool) -> Iterator[None]:
    """Around a step's work: nothing on an ordinary root.

    No other machine works on the step inside. Its artifact is brought first, if the object root has it, else its
    inputs; when the work ends without an error, the artifact is sent. force: it is no longer there from now on.
    """
    mirror, name = mirror_of(step.artifact.root), step.stage.name
    if mirror is None:
        yield
        return

    def came(artifact: Artifact) -> None:
        say(f"{name}: brings {artifact.stage} {artifact.key[:16]} from {mirror.remote.url}")

    waiting = lambda line: say(f"{name}: {line}")  # noqa: E731
    with (
        in_sentences(step.artifact.path, "what is done is kept: ", "another GEOMIM_CACHE"),
        mirror.alone(step.artifact, step.command or f"geomim {name}", waiting) as lease,
    ):
        if force:
            mirror.forget(step.artifact)
        else:
            mirror.bring(step.artifact, came)
        if force or not step.artifact.is_intact():
            for needed in step.inputs.artifacts.values():
                mirror.bring(needed, came)
        yield
        mirror.send(step.artifact, lease)


def bring(artifact: Artifact) -> None:
    """Have a cached artifact here, but for the shards of its stores, where an object root has it alone."""
    if mirror := mirror_of(artifact.root):
        mirror.bring(artifact)
