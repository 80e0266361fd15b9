"""A step of training, told to the device in one go: the host asks for nothing before the next one has been told too."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Generic

import torch
from torch import Tensor, nn

from training.bad_steps import Statistics, not_finite
from training.ema import Ema
from training.ranks import gathered, rank_count, shares, sum_over_ranks, without_averaging
from training.task import AnyBatch, Batch, Task


class Taken:
    """A step that the device may still be at. What it made is known once `wait` returns."""

    def __init__(
        self, step: int, batches: Sequence[Batch], losses: Sequence[Tensor], names: Sequence[str], made: Tensor
    ):
        """losses: of each micro-batch, with its terms; made: the numbers of these names and `due`, of all ranks."""
        self.step, self._names, self._losses = step, names, losses
        self._tokens = [list(batch.tokens) for batch in batches]
        self._made = made.to("cpu", non_blocking=True)  # in page-locked memory, from a GPU
        self._arrived = torch.cuda.current_stream(made.device).record_event() if made.is_cuda else None

    def wait(self) -> None:
        """Until the step's numbers are here: `values` to log, `problem`, what is not finite or "", and `due`."""
        if self._arrived:
            self._arrived.synchronize()
        *means, norms, due = self._made.tolist()
        self.values: dict[str, float] = dict(zip(self._names, means, strict=True))
        self.problem = not_finite(self.values | {"a batch norm's statistic": norms})
        self.due = due > 0

    @property
    def tokens(self) -> list[str]:
        """Of this rank's samples."""
        return [token for tokens in self._tokens for token in tokens]

    def suspects(self) -> list[str]:
        """The tokens of all ranks' micro-batches whose loss is not finite, or of all if none is; for all ranks."""
        bad = [tokens for tokens, loss in zip(self._tokens, self._losses) if not loss.isfinite().all()]
        return _of_all_ranks(bad) or _of_all_ranks(self._tokens)


class Stepper(Generic[AnyBatch]):
    """Takes steps. One in which not all is finite changes nothing: the device itself sees to it."""

    def __init__(
        self,
        task: Task[AnyBatch],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        clip_norm: float,
        ema: Ema | None = None,
    ):
        """optimizer: a fused one, which can be told on the device to leave out a step."""
        if not optimizer.defaults.get("fused"):
            raise ValueError(f"{type(optimizer).__name__} has to be fused: only then it leaves out steps on the device")
        self._task, self._model, self._optimizer, self._clip_norm, self._ema = task, model, optimizer, clip_norm, ema
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._statistics = Statistics(model)
        self.device = self._parameters[0].device

    def take(self, step: int, loaded: Sequence[AnyBatch], due: bool = False) -> Taken:
        """A step with all that follows from it.

        due: something that rank 0 tells all of them; others say False.
        """
        self._statistics.keep()
        taken, finite = self._backward(step, loaded, due)
        self._statistics.put_back(~finite)
        # As a gradient scaler tells it: the optimiser leaves weights, moments and its count of steps alone.
        self._optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self._optimizer.step()
        if self._ema is not None:
            self._ema.update(self._model, step, finite)
        return taken

    def problem_of(self, loaded: Sequence[AnyBatch]) -> str:
        """What is not finite of these batches with the weights as they are, "" if all is. Nothing is learnt."""
        self._statistics.keep()
        taken, finite = self._backward(0, loaded, False)
        self._statistics.put_back(torch.ones_like(finite))
        taken.wait()
        return taken.problem

    def _backward(self, step: int, loaded: Sequence[AnyBatch], due: bool) -> tuple[Taken, Tensor]:
        """Leave a step's clipped gradients in the parameters. Returns it, and whether all ranks' is finite: () bool."""
        self._optimizer.zero_grad(set_to_none=True)
        batches, losses = [batch.to(self.device) for batch in loaded], []
        weights = shares(self._task.counts, batches)
        for number, (batch, weight) in enumerate(zip(batches, weights), 1):
            # Gradients are averaged over the ranks once a step, in the last backward pass.
            with nullcontext() if number == len(batches) else without_averaging(self._task.network):
                terms = self._task.terms(batch)
                parts = {term.name: term.weight * term.mean * weight.get(term.name, 1.0) for term in terms}
                loss = torch.stack(list(parts.values())).sum()
                (loss / len(batches)).backward()
            losses.append(torch.stack([loss, *parts.values()]).detach())
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        # One transfer for all that the ranks must agree on, and one for all that the host reads.
        others = torch.stack([norm, self._statistics.largest(norm), norm.new_full((), float(due))])
        made = sum_over_ranks(torch.cat([torch.stack(losses).mean(0), others])) / rank_count()
        return Taken(step, batches, losses, ("loss", *parts, "gradient_norm"), made), made.isfinite().all()


def _of_all_ranks(tokens: Iterable[Sequence[str]]) -> list[str]:
    return [token for each in gathered([t for ts in tokens for t in ts]) for token in each]
