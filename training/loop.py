"""The training loop that every learning stage runs: short enough to read, and to go on from wherever it was killed."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from common.progress import progress, say
from training.bad_steps import BadSteps, not_finite
from training.checkpoint import Checkpoint
from training.ema import Ema
from training.log import MetricLog
from training.prefetch import Prefetcher
from training.ranks import rank, wait_for_ranks
from training.schedule import Schedule
from training.step import Stepper, Taken
from training.task import AnyBatch, Task


@dataclass(frozen=True)
class TrainSpec:
    """How a task is trained."""

    what: str  # the stage's name, and after a comma what of it this trains
    schedule: Schedule
    clip_norm: float  # largest norm of the gradient
    evaluate_every: int = 0  # steps; 0: after the last alone
    seconds_between_saves: float = 30.0
    loaders: int = 1  # threads that load ahead
    skip_samples: tuple[str, ...] = ()  # tokens that `Task.load` leaves out, for the log


def train(
    spec: TrainSpec,
    task: Task[AnyBatch],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    checkpoint: Checkpoint,
    log_folder: Path,
    ema: Ema | None = None,
    after_save: Callable[[int], None] = lambda step: None,
) -> dict[str, float]:
    """Train `model` in place, going on from `checkpoint` where it holds some; what was measured last, {} if nothing.

    All ranks (see ranks.py) call this, while rank 0 alone writes, evaluates and tells. The loss of a step is the mean
    over its micro-batches and the ranks of their terms, each counting as much as it has to learn from. The rate of each
    parameter group is its initial one times the schedule's factor, also where `train` is called again to go on.

    A step in which not all is finite leaves everything but random states as it was. The log names its samples: those of
    the micro-batches whose loss is not, or all of the step's if only its gradient or a batch norm is at fault. All that
    the host asks of a step it asks when the next one is told to the device, which thus never waits for the host; but
    for steps after which something is measured or saved.

    ema: follows `model`, on rank 0 (None elsewhere). `after_save(steps done)` follows every checkpoint.

    Raises NonFiniteLoss on all ranks where MOST_IN_A_ROW steps in a row are not finite, or training ends diverged.
    """
    steps, what = spec.schedule.steps, spec.what
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    done, extra = checkpoint.load(model, optimizer, ema)
    measured = extra.get("marked", {})
    if done == steps:
        return measured
    stepper = Stepper(task, model, optimizer, spec.clip_norm, ema)

    def load(step: int) -> Sequence[AnyBatch]:
        batches = task.load(step)
        return [batch.pinned() for batch in batches] if stepper.device.type == "cuda" else batches

    def settle(taken: Taken, timing: dict[str, float]) -> None:
        """Wait for a step and tell of it."""
        taken.wait()
        if not taken.problem:
            history.good(taken.step, taken.tokens)
            if log:
                log.write(taken.step, taken.values | timing)
            return
        tokens = taken.suspects()
        history.bad(taken.step, tokens)
        if log:
            log.note(taken.step, {"skipped": taken.problem, "samples": tokens})
            say(f"{what}: step {taken.step} is skipped: {taken.problem}; samples {', '.join(tokens)}")
        if history.too_many or taken.step + 1 == steps:
            good = history.last_good
            diverged = good is not None and bool(stepper.problem_of(load(good)))
            if diverged or history.too_many:
                raise history.error(what.partition(",")[0], taken.problem, diverged)

    first = rank() == 0
    asked, to_save = time.monotonic(), False  # when rank 0 last asked for a checkpoint; whether one is wanted
    todo = range(done, steps)
    history = BadSteps(done, steps, spec.skip_samples)
    flying: deque[tuple[Taken, dict[str, float]]] = deque()  # a step is told while the device is at the next one
    log = MetricLog(log_folder, done) if first else None
    with log or nullcontext(), Prefetcher(load, todo, spec.loaders, ahead=spec.loaders) as coming:
        if log and spec.skip_samples:
            log.note(done, {"skip_samples": list(spec.skip_samples)})
        for step in progress(todo, what, total=steps, unit="steps", done=done) if first else todo:
            start, last = time.monotonic(), step + 1 == steps
            loaded = next(coming)
            waited = time.monotonic() - start
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * spec.schedule.factor(step)

            due = first and start - asked >= spec.seconds_between_saves
            asked = start if due else asked
            taken = stepper.take(step, loaded, due)
            timing = {"rate": max(g["lr"] for g in optimizer.param_groups), "seconds_waiting": waited}
            flying.append((taken, timing))
            marks = last or bool(spec.evaluate_every and (step + 1) % spec.evaluate_every == 0)
            while flying and (marks or to_save or len(flying) > 1):
                told, its_timing = flying.popleft()
                its_timing.setdefault("seconds", time.monotonic() - start)
                settle(told, its_timing)
                to_save |= told.due and told is not taken  # all ranks know of it by now: after this step
            timing.setdefault("seconds", time.monotonic() - start)

            if marks:
                if log and (metrics := task.evaluate(step + 1)):
                    if nothing := not_finite(metrics):
                        say(f"{what}: after {step + 1} steps {nothing}")
                    measured = {name: value for name, value in metrics.items() if math.isfinite(value)}
                    log.write(step, measured)
                wait_for_ranks()
            if last or (to_save and history.last_good == step):  # what follows a bad step is not known to be sound
                checkpoint.save(step + 1, model, optimizer, {"marked": measured}, ema)
                if first:
                    after_save(step + 1)
                asked, to_save = time.monotonic(), False  # a save that takes long is not followed by the next at once
            to_save |= not flying and taken.due
    return measured
