"""A training step that a GPU need not interrupt: the host never asks for a number that the device has yet to compute.

It is run on torch's `meta` device, which has shapes and no numbers: whoever asks for one gets an error, and what is not
for a CPU is taken for a GPU. Constants that are copied to the device from ordinary memory, which waits too, are named.
"""

from contextlib import nullcontext
from unittest import mock

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from training.task import Task

META = torch.device("meta")


class Copies(TorchFunctionMode):
    """Tensors made on the device out of the host's numbers, or moved there."""

    def __init__(self):
        super().__init__()
        self.made: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", str(func))
        if isinstance(made, torch.Tensor) and made.device == META:
            from_host = any(isinstance(a, torch.Tensor) and a.device != META for a in args)
            if name in ("tensor", "as_tensor", "new_tensor", "from_numpy") or (from_host and name in ("to", "copy_")):
                self.made.append(f"{name}{tuple(made.shape)}")
        return made


def step_without_waiting(task: Task, model: nn.Module, batch) -> list[str]:
    """The second step of `batch`; what was copied to the device in it. Raises where a number is asked for."""
    _step(task, model, batch)  # constants are copied once
    return _step(task, model, batch)


def _step(task: Task, model: nn.Module, batch) -> list[str]:
    model.to(META)
    moved = batch.to(META)
    with Copies() as copies, mock.patch.object(torch, "autocast", return_value=nullcontext()):
        terms = task.terms(moved)
        torch.stack([term.weight * term.mean for term in terms]).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    return copies.made
