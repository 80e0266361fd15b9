"""Steps whose loss or gradient is not finite: they are skipped and told, and too many in a row end the run."""

import json
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import UserError
from training.ranks import gathered

# A bad sample spoils a step now and then, and in bf16 chance does. So many in a row are neither, and teach nothing.
MOST_IN_A_ROW = 8


class NonFiniteLoss(UserError):
    """Steps in a row whose loss or gradient is NaN or infinite."""


class Statistics:
    """The running statistics of a model's batch norms. A forward pass changes them, so a bad step must be undone.

    They can be at fault alone: normalised, a sample of 1e30 is like any other.
    """

    def __init__(self, model: nn.Module):
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        self._floats = [buffer for buffer in buffers if buffer.is_floating_point()]
        self._counts = [buffer for buffer in buffers if not buffer.is_floating_point()]
        # By type: a GPU copies such a list in one kernel.
        self._kept = [(now, [buffer.clone() for buffer in now]) for now in (self._floats, self._counts) if now]

    def keep(self) -> None:
        """As they are before a step."""
        for now, kept in self._kept:
            torch._foreach_copy_(kept, now)

    def put_back(self) -> None:
        for now, kept in self._kept:
            torch._foreach_copy_(now, kept)

    def largest(self, like: Tensor) -> Tensor:
        """Their largest values, added up: (), on the device of `like`, not finite if one of them is not."""
        norms = torch._foreach_norm(self._floats, torch.inf) if self._floats else [like.new_zeros(())]
        return torch.stack(norms).sum()


class BadSteps:
    """What is known of the last steps: the same on all ranks, but for the samples that were in finite ones.

    skipped: tokens of the samples that are left out already.
    """

    def __init__(self, done: int, steps: int, skipped: Iterable[str] = ()):
        self.last_good = done - 1 if done else None  # but for the last step's, checkpoints follow good steps alone
        self._skipped = list(skipped)
        self._most = min(MOST_IN_A_ROW, steps)
        self._fine: set[str] = set()  # tokens of this rank's samples
        self._bad: list[int] = []  # steps, the last ones
        self._suspects: dict[str, None] = {}  # tokens of all ranks' samples, in the order of the steps

    def good(self, step: int, tokens: Iterable[str]) -> None:
        """A finite step, with this rank's samples."""
        self.last_good = step
        self._fine.update(tokens)
        self._bad.clear()
        self._suspects.clear()

    def bad(self, step: int, tokens: Iterable[str]) -> None:
        """A step that is skipped, with all ranks' samples that may be to blame."""
        self._bad.append(step)
        self._suspects |= dict.fromkeys(tokens)

    @property
    def too_many(self) -> bool:
        return len(self._bad) >= self._most

    def error(self, stage: str, problem: str, diverged: bool) -> NonFiniteLoss:
        """Why the run ends. Called on all ranks.

        diverged: whether the samples of the last good step, too, have no finite loss any more.
        """
        steps = f"steps {self._bad[0]} to {self._bad[-1]}" if len(self._bad) > 1 else f"step {self._bad[0]}"
        if diverged:
            return NonFiniteLoss(
                f"{stage}: {steps}: {problem}; nor is the loss of step {self.last_good} finite any more: training has "
                f"diverged; lower {stage}.rate, which begins anew"
            )
        fine = set().union(*gathered(self._fine))
        suspects = [token for token in self._suspects if token not in fine] or list(self._suspects)
        left_out = list(dict.fromkeys([*self._skipped, *suspects]))  # what --set says takes the place of what was there
        return NonFiniteLoss(
            f"{stage}: {steps}: {problem}; samples {', '.join(suspects)}: look at their data, or go on without them by "
            f"--set '{stage}.skip_samples={json.dumps(left_out)}'"
        )


def not_finite(values: Mapping[str, float]) -> str:
    """Which of the values are not finite, in words; "" if all are."""
    return ", ".join(f"{name} is {value}" for name, value in values.items() if not math.isfinite(value))
