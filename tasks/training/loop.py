"""The training loop that every learning stage runs: short enough to read, and to go on from wherever it was killed."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tasks.errors import UserError
from tasks.progress import progress
from tasks.training.checkpoint import Checkpoint
from tasks.training.ema import Ema
from tasks.training.log import MetricLog
from tasks.training.prefetch import Prefetcher
from tasks.training.ranks import gathered, rank, rank_count, sum_over_ranks, wait_for_ranks, without_averaging

Batch = TypeVar("Batch")


class NonFiniteLoss(UserError):
    """A loss or gradient that is NaN or infinite."""


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
) -> dict[str, float]:
    """Train `model` in place for `steps` steps, going on from `checkpoint` where it holds some.

    A step's batch is `load_batch(step)`, made ahead of time by `loaders` threads. It falls into `micro_batches`, by
    default one. The loss of a micro-batch is the sum of its `loss_terms`; that of the step is the mean over its
    micro-batches and over the ranks (see ranks.py), which all call this, while rank 0 alone writes and tells. The rate
    of each parameter group is its initial one times `rate_factor(step)`, also where `train` is called again to go on.

    `after_save(steps done)` follows every checkpoint. After every `every`-th step and the last, `at_mark(steps done)`
    runs on rank 0 while the others wait, and what it returns is logged; the last of these is returned, {} if none.

    Args:
        network: what `loss_terms` calls in place of `model` on several ranks (see `ranks.distribute`).
        ema: follows `model`, on rank 0 (None elsewhere).

    Raises NonFiniteLoss on all ranks, naming the samples of the micro-batches that have it (all of the step's if only
    the gradient does), before a bad step reaches the weights.
    """
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    done, extra = checkpoint.load(model, optimizer, ema)
    marked = extra.get("marked", {})
    if done == steps:
        return marked
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    first = rank() == 0
    saved = time.monotonic()
    todo = range(done, steps)
    log = MetricLog(log_folder, done) if first else nullcontext()
    with log, Prefetcher(load_batch, todo, loaders, ahead=loaders) as batches:
        for step in progress(todo, what, total=steps, unit="steps", done=done) if first else todo:
            start = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - start
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate_factor(step)

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

            # One transfer tells all ranks what to log, whether to stop and whether rank 0's clock says to save.
            due = float(first and time.monotonic() - saved > seconds_between_saves)
            told = torch.cat([torch.stack(losses).mean(0), torch.stack([norm, norm.new_tensor(due)])])
            *values, due = (sum_over_ranks(told) / rank_count()).tolist()
            values = dict(zip(("loss", *terms, "gradient_norm"), values, strict=True))
            if not all(map(math.isfinite, values.values())):
                bad = [part for part, loss in zip(parts, losses) if not loss.isfinite().all()]
                raise non_finite(step, values, tokens_in(bad, tokens_of) or tokens_in(parts, tokens_of))
            optimizer.step()
            if ema is not None:
                ema.update(model, step)

            if first:
                seconds = {"seconds": time.monotonic() - start, "seconds_waiting": waited}
                log.write(step, values | {"rate": max(g["lr"] for g in optimizer.param_groups)} | seconds)
            last = step + 1 == steps
            if at_mark is not None and (last or (every and (step + 1) % every == 0)):
                if first:
                    marked = at_mark(step + 1)
                    log.write(step, marked)
                wait_for_ranks()
            if last or due:
                checkpoint.save(step + 1, model, optimizer, {"marked": marked}, ema)
                if first:
                    after_save(step + 1)
                saved = time.monotonic()
    return marked


def tokens_in(parts: Iterable[Any], tokens_of: Callable[[Any], Sequence[str]]) -> list[str]:
    """The sample tokens of these micro-batches of all ranks; called by all of them."""
    return [token for tokens in gathered([t for part in parts for t in tokens_of(part)]) for token in tokens]


def non_finite(step: int, values: dict[str, float], tokens: Sequence[str]) -> NonFiniteLoss:
    """The sentence about the values that are not finite."""
    named = ", ".join(f"{name} is {value}" for name, value in values.items() if not math.isfinite(value))
    return NonFiniteLoss(
        f"step {step}: {named}; samples {', '.join(tokens)}: look at their data, or lower the learning rate"
    )
