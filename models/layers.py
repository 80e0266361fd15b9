"""Layers that transformers and convolutional networks share, and how they are run."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Layer = TypeVar("Layer", bound=nn.Module)

if TYPE_CHECKING:

    class ModuleList(nn.ModuleList, Generic[Layer]):
        """torch's, which forgets of what kind its layers are."""

        def __init__(self, layers: Iterable[Layer] = ()): ...
        def __iter__(self) -> Iterator[Layer]: ...
else:
    ModuleList = nn.ModuleList


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, out: int | None = None):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim if out is None else out)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        if not torch.is_grad_enabled():
            return self._project(hidden)
        # The activation is as large as all else a block keeps, and cheap: the backward pass makes it again.
        return checkpoint(self._project, hidden, use_reentrant=False, preserve_rng_state=False)

    def _project(self, hidden: Tensor) -> Tensor:
        return self.fc2(F.gelu(hidden))


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for whole images, and scales the kept ones to the same mean."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.rate
        return x * keep / (1 - self.rate)


def run_block(block: nn.Module, checkpointing: bool, *inputs: Any) -> Tensor:
    """The block's output; with checkpointing nothing inside it is kept for the backward pass."""
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
