"""Products of bfloat16 as processors with such instructions make them: summed in float32 and rounded once.

torch has no fast ones for other CPUs, where a network takes ten times as long in bfloat16 as in float32.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any, tree_map

aten = torch.ops.aten
PRODUCTS = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution, aten.convolution_backward, aten.linear)


def _is_bfloat16(value):
    return isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16


class FastProducts(TorchDispatchMode):
    """While the context lasts, below autograd and autocast."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.overloadpacket not in PRODUCTS or "out" in kwargs or not tree_any(_is_bfloat16, (args, kwargs)):
            return func(*args, **kwargs)
        wide = tree_map(lambda value: value.float() if _is_bfloat16(value) else value, (args, kwargs))
        made = func(*wide[0], **wide[1])
        return tree_map(lambda value: value.bfloat16() if isinstance(value, torch.Tensor) else value, made)


def fast_products() -> AbstractContextManager:
    """This processor's own products where it has such instructions, else those."""
    able = torch.cpu.get_capabilities()
    return nullcontext() if able.get("amx_bf16") or able.get("avx512_bf16") else FastProducts()
