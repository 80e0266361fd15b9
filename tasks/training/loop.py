"""The training loop that every learning stage runs: short enough to read, and to go on from wherever it was killed."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from tasks.errors import UserError
from tasks.progress import progress
from tasks.training.checkpoint import Checkpoint
from tasks.training.device import loader_thread
from tasks.training.log import MetricLog

Batch = TypeVar("Batch")


class NonFiniteLoss(UserError):
    """A loss or gradient that is NaN or infinite."""


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    load_batch: Callable[[int], Batch],
    loss_terms: Callable[[Batch], dict[str, Tensor]],
    tokens_of: Callable[[Batch], Sequence[str]],
    steps: int,
    rate_factor: Callable[[int], float],
    clip_norm: float,
    checkpoint: Checkpoint,
    log_folder: Path,
    what: str,
    seconds_between_saves: float = 30.0,
    after_save: Callable[[int], None] = lambda step: None,
) -> None:
    """Train `model` in place for `steps` steps, going on from `checkpoint` where it holds some.

    A step's batch is `load_batch(step)`, prepared one step ahead in a thread; its loss is the sum of `loss_terms`. The
    rate of each parameter group is its initial one times `rate_factor(step)`, also where `train` is called again to go
    further. `after_save(steps done)` follows every checkpoint. Raises NonFiniteLoss, naming the batch's samples, before
    a bad step reaches the weights.
    """
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    done, _ = checkpoint.load(model, optimizer)
    if done == steps:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    saved = time.monotonic()
    with MetricLog(log_folder, done) as log, loader_thread() as ahead:
        coming = ahead.submit(load_batch, done)
        for step in progress(range(done, steps), what, total=steps, unit="steps", done=done):
            start = time.monotonic()
            batch = coming.result()
            if step + 1 < steps:
                coming = ahead.submit(load_batch, step + 1)
            waited = time.monotonic() - start
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate_factor(step)

            terms = loss_terms(batch)
            loss = torch.stack(list(terms.values())).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
            values = {"loss": loss.item()} | {name: term.item() for name, term in terms.items()}
            check_finite(values | {"gradient norm": norm.item()}, tokens_of(batch), step)
            optimizer.step()

            seconds = {"seconds": time.monotonic() - start, "seconds_waiting": waited}
            rate = {"rate": max(group["lr"] for group in optimizer.param_groups)}
            log.write(step, values | {"gradient_norm": norm.item()} | rate | seconds)
            if step + 1 == steps or time.monotonic() - saved > seconds_between_saves:
                checkpoint.save(step + 1, model, optimizer)
                after_save(step + 1)
                saved = time.monotonic()


def check_finite(values: dict[str, float], tokens: Sequence[str], step: int) -> None:
    """Raise NonFiniteLoss if any value is not finite, naming it and the samples it came from."""
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if bad:
        named = ", ".join(f"{name} is {value}" for name, value in bad.items())
        raise NonFiniteLoss(
            f"step {step}: {named}; samples {', '.join(tokens)}: look at their data, or lower the learning rate"
        )
