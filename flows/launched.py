"""A training's command under torchrun or the like: one process of many, on one machine or several, each a rank.

Rank 0 does what the command does alone: it plans, takes the artifact's lock, writes and prints. The others do their
part of its trainings (training/ranks.py).
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from common.launcher import Launched, launched
from flows.local import run_stage
from storage.sentences import in_sentences
from tasks.engine.child import again, as_told, exit_code
from tasks.engine.config import PipelineConfig
from tasks.engine.plan import missing_dataroot
from tasks.engine.roots import usable_root
from tasks.engine.stage import Inputs

if TYPE_CHECKING:
    from training.rendezvous import Rendezvous

TRAINED = ("fit", "pretrain", "finetune")
SECONDS_TO_SEE = 10.0  # what another machine wrote, through a network file system's caches


def refuse_launched(command: str) -> None:
    """Raise UserError where processes were launched as ranks of a command that trains nothing, or starts its own."""
    if place := launched():
        raise UserError(
            f"{command}: has no ranks, and {place.count} were launched (RANK and WORLD_SIZE are set): "
            f"run it without torchrun, which is for {', '.join(TRAINED[:-1])} and {TRAINED[-1]}"
        )


def run_launched(place: Launched, name: str, load: Callable[[], PipelineConfig], root: Path, force: bool) -> None:
    """Run a stage's command on all launched ranks; the process ends here where one of them fails.

    load: reads this rank's config. force: at the first start; what a launcher starts again goes on.
    """
    from training.rendezvous import Rendezvous  # torch, which takes seconds

    if name not in TRAINED:
        refuse_launched(name)
    others, config = Rendezvous(place), None
    force = force and not place.restarted
    try:
        with in_sentences():
            mark = others.hear("mark") if place.rank else None  # after rank 0, so that what is wrong on all it says
            config = load()
            if mark:
                _follow(others, config, *mark)
            else:
                _lead(others, config, name, root, force)
    except Exception as error:
        told = as_told(name, config and getattr(config, name), error)
        others.fail(again(str(told), force), exit_code(told))
    others.leave()


def _lead(others: "Rendezvous", config: PipelineConfig, name: str, root: Path, force: bool) -> None:
    root = usable_root(root)
    mark = root / f".seen.{uuid.uuid4().hex}"
    mark.touch()
    try:
        others.tell("mark", (mark, gethostname()))
        problems = [others.hear(f"problem {other}") for other in range(1, others.place.count)]
    finally:
        mark.unlink()
    for problem in problems:
        if problem:
            raise UserError(problem)
    run_stage(config, root, name, force)
    others.give(None)


def _follow(others: "Rendezvous", config: PipelineConfig, mark: Path, writer: str) -> None:
    from training.ranks import follow

    others.tell(f"problem {others.place.rank}", _problem(config, mark, writer))

    def here(argument: Any) -> Any:
        if isinstance(argument, Inputs) and config.dataroot is not None:
            return replace(argument, dataroot=config.dataroot)  # which may lie elsewhere on every machine
        return argument

    follow(others, here)


def _problem(config: PipelineConfig, mark: Path, writer: str) -> str:
    """Why this machine cannot take part, in a sentence; "" if it can."""
    deadline = time.monotonic() + SECONDS_TO_SEE
    while not mark.exists():
        if time.monotonic() > deadline:
            return (
                f"--root {mark.parent}: {gethostname()} does not see what {writer} writes there: "
                "name a folder on a file system that all machines share"
            )
        time.sleep(0.1)
    missing = missing_dataroot(config)
    return f"on {gethostname()}: {missing}" if missing else ""
