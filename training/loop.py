"""The training loop that every learning stage runs: short enough to read, and to go on from wherever it was killed."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.progress import progress, say
from training.bad_steps import BadSteps, Statistics, not_finite
from training.checkpoint import Checkpoint
from training.ema import Ema
from training.log import MetricLog
from training.prefetch import Prefetcher
from training.ranks import gathered, rank, rank_count, shares, sum_over_ranks, wait_for_ranks, without_averaging
from training.schedule import Schedule
from training.task import AnyBatch, Batch, Task


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


class Gradient(NamedTuple):
    """What a step's backward passes leave beside the clipped gradients."""

    batches: Sequence[Batch]  # on the device
    losses: list[Tensor]  # of each batch: its loss and the terms that it is the sum of
    values: dict[str, float]  # to log
    problem: str  # what is not finite, "" if nothing
    due: float  # the mean of all ranks' `due`


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
    the micro-batches whose loss is not, or all of the step's if only its gradient or a batch norm is at fault.

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
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    device = parameters[0].device

    def load(step: int) -> Sequence[AnyBatch]:
        batches = task.load(step)
        return [batch.pinned() for batch in batches] if device.type == "cuda" else batches

    def backward(loaded: Sequence[AnyBatch], due: float = 0.0) -> Gradient:
        """Leave a step's clipped gradients in the parameters."""
        optimizer.zero_grad(set_to_none=True)
        batches, losses = [batch.to(device) for batch in loaded], []
        weights = shares(task.counts, batches)
        for number, (batch, weight) in enumerate(zip(batches, weights), 1):
            # Gradients are averaged over the ranks once a step, in the last backward pass.
            with nullcontext() if number == len(batches) else without_averaging(task.network):
                terms = {term.name: term.weight * term.mean * weight.get(term.name, 1.0) for term in task.terms(batch)}
                loss = torch.stack(list(terms.values())).sum()
                (loss / len(batches)).backward()
            losses.append(torch.stack([loss, *terms.values()]).detach())
        norm = nn.utils.clip_grad_norm_(parameters, spec.clip_norm)
        # One transfer for all that the ranks must agree on.
        others = torch.stack([norm, statistics.largest(norm), norm.new_tensor(due)])
        shared = torch.cat([torch.stack(losses).mean(0), others])
        *means, norms, due = (sum_over_ranks(shared) / rank_count()).tolist()
        values: dict[str, float] = dict(zip(("loss", *terms, "gradient_norm"), means, strict=True))
        return Gradient(batches, losses, values, not_finite(values | {"a batch norm's statistic": norms}), due)

    first = rank() == 0
    saved = time.monotonic()
    todo = range(done, steps)
    history, statistics = BadSteps(done, steps, spec.skip_samples), Statistics(model)
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

            statistics.keep()
            due = float(first and time.monotonic() - saved > spec.seconds_between_saves)  # rank 0's clock says to save
            batches, losses, values, problem, due = backward(loaded, due)
            if problem:
                statistics.put_back()
                bad = [batch for batch, loss in zip(batches, losses) if not loss.isfinite().all()]
                tokens = tokens_in(bad) or tokens_in(batches)
                history.bad(step, tokens)
                if log:
                    log.note(step, {"skipped": problem, "samples": tokens})
                    say(f"{what}: step {step} is skipped: {problem}; samples {', '.join(tokens)}")
                if last or history.too_many:
                    good = history.last_good
                    diverged = good is not None and bool(backward(load(good)).problem)
                    statistics.put_back()
                    if diverged or history.too_many:
                        raise history.error(what.partition(",")[0], problem, diverged)
            else:
                history.good(step, (token for batch in batches for token in batch.tokens))
                optimizer.step()
                if ema is not None:
                    ema.update(model, step)
                if log:
                    seconds = {"seconds": time.monotonic() - start, "seconds_waiting": waited}
                    log.write(step, values | {"rate": max(g["lr"] for g in optimizer.param_groups)} | seconds)

            if last or (spec.evaluate_every and (step + 1) % spec.evaluate_every == 0):
                if log and (metrics := task.evaluate(step + 1)):
                    if nothing := not_finite(metrics):
                        say(f"{what}: after {step + 1} steps {nothing}")
                    measured = {name: value for name, value in metrics.items() if math.isfinite(value)}
                    log.write(step, measured)
                wait_for_ranks()
            if last or (due and not problem):  # what follows a bad step is not known to be sound
                checkpoint.save(step + 1, model, optimizer, {"marked": measured}, ema)
                if first:
                    after_save(step + 1)
                saved = time.monotonic()
    return measured


def tokens_in(batches: Iterable[Batch]) -> list[str]:
    """The sample tokens of these batches of all ranks; called by all of them."""
    return [token for tokens in gathered([t for batch in batches for t in batch.tokens]) for token in tokens]
