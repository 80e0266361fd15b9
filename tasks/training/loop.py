"""The training loop that every learning stage runs: short enough to read, and to go on from wherever it was killed."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from common.progress import progress, say
from tasks.training.bad_steps import BadSteps, Statistics, not_finite
from tasks.training.checkpoint import Checkpoint
from tasks.training.ema import Ema
from tasks.training.log import MetricLog
from tasks.training.prefetch import Prefetcher
from tasks.training.ranks import gathered, rank, rank_count, sum_over_ranks, wait_for_ranks, without_averaging

Batch = TypeVar("Batch")


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    load_batch: Callable[[int], Batch],
    loss_terms: Callable[[Any], dict[str, Tensor]],
    tokens_of: Callable[[Any], Sequence[str]],
    steps: int,
    rate_factor: Callable[[int], float],
    clip_norm: float,
    checkpoint: Checkpoint,
    log_folder: Path,
    what: str,
    seconds_between_saves: float = 30.0,
    after_save: Callable[[int], None] = lambda step: None,
    network: nn.Module | None = None,
    micro_batches: Callable[[Batch], Sequence[Any]] = lambda batch: [batch],
    ema: Ema | None = None,
    every: int = 0,
    at_mark: Callable[[int], dict[str, float]] | None = None,
    loaders: int = 1,
    skip_samples: Sequence[str] = (),
) -> dict[str, float]:
    """Train `model` in place for `steps` steps, going on from `checkpoint` where it holds some.

    A step's batch is `load_batch(step)`, made ahead of time by `loaders` threads. It falls into `micro_batches`, by
    default one. The loss of a micro-batch is the sum of its `loss_terms`; that of the step is the mean over its
    micro-batches and over the ranks (see ranks.py), which all call this, while rank 0 alone writes and tells. The rate
    of each parameter group is its initial one times `rate_factor(step)`, also where `train` is called again to go on.

    A step in which not all is finite leaves everything but random states as it was. The log names its samples: those of
    the micro-batches whose loss is not, or all of the step's if only its gradient or a batch norm is at fault.

    `after_save(steps done)` follows every checkpoint. After every `every`-th step and the last, `at_mark(steps done)`
    runs on rank 0 while the others wait, and what it returns is logged; the last of these is returned, {} if none.

    Args:
        what: the stage's name, and after a comma what of it this trains.
        network: what `loss_terms` calls in place of `model` on several ranks (see `ranks.distribute`).
        ema: follows `model`, on rank 0 (None elsewhere).
        skip_samples: tokens that `load_batch` leaves out, for the log.

    Raises NonFiniteLoss on all ranks where MOST_IN_A_ROW steps in a row are not finite, or training ends diverged.
    """
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    done, extra = checkpoint.load(model, optimizer, ema)
    marked = extra.get("marked", {})
    if done == steps:
        return marked
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def backward(batch: Batch, told: float = 0.0) -> tuple[list[Any], list[Tensor], dict[str, float], str, float]:
        """Leave a step's clipped gradients in the parameters.

        (Its micro-batches, the loss of each, what to log, what is not finite, the mean of all ranks' `told`.)
        """
        optimizer.zero_grad(set_to_none=True)
        parts = micro_batches(batch)
        losses = []  # of each micro-batch: its loss and the terms that it is the sum of
        for number, part in enumerate(parts, 1):
            # Gradients are averaged over the ranks once a step, in the last backward pass.
            with nullcontext() if number == len(parts) else without_averaging(network):
                terms = loss_terms(part)
                loss = torch.stack(list(terms.values())).sum()
                (loss / len(parts)).backward()
            losses.append(torch.stack([loss, *terms.values()]).detach())
        norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
        # One transfer for all that the ranks must agree on.
        others = torch.stack([norm, statistics.largest(norm), norm.new_tensor(told)])
        shared = torch.cat([torch.stack(losses).mean(0), others])
        *values, norms, told = (sum_over_ranks(shared) / rank_count()).tolist()
        values = dict(zip(("loss", *terms, "gradient_norm"), values, strict=True))
        return parts, losses, values, not_finite(values | {"a batch norm's statistic": norms}), told

    first = rank() == 0
    saved = time.monotonic()
    todo = range(done, steps)
    history, statistics = BadSteps(done, steps, skip_samples), Statistics(model)
    log = MetricLog(log_folder, done) if first else nullcontext()
    with log, Prefetcher(load_batch, todo, loaders, ahead=loaders) as batches:
        if first and skip_samples:
            log.note(done, {"skip_samples": list(skip_samples)})
        for step in progress(todo, what, total=steps, unit="steps", done=done) if first else todo:
            start, last = time.monotonic(), step + 1 == steps
            batch = next(batches)
            waited = time.monotonic() - start
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate_factor(step)

            statistics.keep()
            due = float(first and time.monotonic() - saved > seconds_between_saves)  # rank 0's clock says to save
            parts, losses, values, problem, due = backward(batch, due)
            if problem:
                statistics.put_back()
                bad = [part for part, loss in zip(parts, losses) if not loss.isfinite().all()]
                tokens = tokens_in(bad, tokens_of) or tokens_in(parts, tokens_of)
                history.bad(step, tokens)
                if first:
                    log.note(step, {"skipped": problem, "samples": tokens})
                    say(f"{what}: step {step} is skipped: {problem}; samples {', '.join(tokens)}")
                if last or history.too_many:
                    good = history.last_good
                    diverged = good is not None and bool(backward(load_batch(good))[3])
                    statistics.put_back()
                    if diverged or history.too_many:
                        raise history.error(what.partition(",")[0], problem, diverged)
            else:
                history.good(step, (token for part in parts for token in tokens_of(part)))
                optimizer.step()
                if ema is not None:
                    ema.update(model, step)
                if first:
                    seconds = {"seconds": time.monotonic() - start, "seconds_waiting": waited}
                    log.write(step, values | {"rate": max(g["lr"] for g in optimizer.param_groups)} | seconds)

            if at_mark is not None and (last or (every and (step + 1) % every == 0)):
                if first:
                    marked = at_mark(step + 1)
                    if nothing := not_finite(marked):
                        say(f"{what}: after {step + 1} steps {nothing}")
                    marked = {name: value for name, value in marked.items() if math.isfinite(value)}
                    log.write(step, marked)
                wait_for_ranks()
            if last or (due and not problem):  # what follows a bad step is not known to be sound
                checkpoint.save(step + 1, model, optimizer, {"marked": marked}, ema)
                if first:
                    after_save(step + 1)
                saved = time.monotonic()
    return marked


def tokens_in(parts: Iterable[Any], tokens_of: Callable[[Any], Sequence[str]]) -> list[str]:
    """The sample tokens of these micro-batches of all ranks; called by all of them."""
    return [token for tokens in gathered([t for part in parts for t in tokens_of(part)]) for token in tokens]
