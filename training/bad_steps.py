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
        # By type, so that all of one are one tensor's copy: they are many and small.
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for buffer in buffers:
            by_type.setdefault(buffer.dtype, []).append(buffer)
        self._buffers = list(by_type.values())
        self._kept: list[Tensor] = []

    def keep(self) -> None:
        """As they are before a step."""
        self._kept = [_joined(buffers) for buffers in self._buffers]

    def put_back(self, where: Tensor) -> None:
        """As they were kept, if `where` () is true; decided on the device."""
        for buffers, kept in zip(self._buffers, self._kept):
            values = torch.where(where, kept, _joined(buffers)).split([buffer.numel() for buffer in buffers])
            torch._foreach_copy_(buffers, [value.view_as(buffer) for value, buffer in zip(values, buffers)])

    def largest(self, like: Tensor) -> Tensor:
        """The largest absolute value: (), on the device of `like`, not finite if one of them is not."""
        values = [_joined(buffers).abs().max().to(like.dtype) for buffers in self._buffers]
        return torch.stack(values).sum() if values else like.new_zeros(())


def _joined(buffers: list[Tensor]) -> Tensor:
    return torch.cat([buffer.flatten() for buffer in buffers])


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
