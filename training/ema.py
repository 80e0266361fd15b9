"""The running average of a network's weights: often better than the last ones, at the price of a copy."""

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

RAMP = 2000  # updates; a young average forgets fast


Model = TypeVar("Model", bound=nn.Module)


class Ema(Generic[Model]):
    """A copy of `model` whose floating-point tensors (statistics of batch norms too) follow it.

    average <- d average + (1 - d) weights, with d = decay (1 - exp(-n / RAMP)) at the n-th update, as in BEVDet. A run
    much shorter than RAMP ends close to its last weights.
    """

    def __init__(self, model: Model, decay: float):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, taken: Tensor) -> None:
        """After optimiser step `step` (the first is 0) of `model`. taken (): false where that one was left out."""
        decay = self.decay * (1 - math.exp(-(step + 1) / RAMP))
        averages, values = self.model.state_dict(), model.state_dict()
        floats = [name for name, value in values.items() if value.is_floating_point()]
        followers = [averages[name] for name in floats]
        # A lerp whose weight the device knows: of a step left out it is 0, and nothing changes.
        ways = torch._foreach_sub([values[name] for name in floats], followers)
        torch._foreach_mul_(ways, taken * (1 - decay))
        torch._foreach_add_(followers, ways)
        for name in values.keys() - floats:
            averages[name].copy_(values[name])
