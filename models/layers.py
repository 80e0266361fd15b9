"""Layers that transformers and convolutional networks share, and how they are run."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.checkpointing import Checkpointing

Layer = TypeVar("Layer", bound=nn.Module)

if TYPE_CHECKING:

    class ModuleList(nn.ModuleList, Generic[Layer]):
        """torch's, which forgets of what kind its layers are."""

        def __init__(self, layers: Iterable[Layer] = ()): ...
        def __iter__(self) -> Iterator[Layer]: ...
else:
    ModuleList = nn.ModuleList


class Mlp(nn.Module):
    checkpointing: Checkpointing = "mlp"

    def __init__(self, dim: int, hidden: int, out: int | None = None):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim if out is None else out)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        if self.checkpointing != "mlp" or not torch.is_grad_enabled():
            return self._project(hidden)
        # The activation is as large as all else a block keeps, and cheap.
        return checkpoint(self._project, hidden, use_reentrant=False, preserve_rng_state=False)

    def _project(self, hidden: Tensor) -> Tensor:
        return self.fc2(F.gelu(hidden))


def dot_product_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax of the scaled products of queries and keys, times the values: all (G, heads, tokens, d)."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
        # torch's backward pass takes six times as long in bf16 as in fp32 there.
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v)


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


def run_block(block: nn.Module, checkpointing: Checkpointing, *inputs: Any) -> Tensor:
    """The block's output."""
    if checkpointing == "block" and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
