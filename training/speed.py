"""Precision and speed: all that a config asks of torch in this, in one place.

precision      fp32   products of float32 numbers, exact to the last bit but one
               tf32   the same weights and sums, products of 10 bits: some three times faster on tensor cores
               bf16   the forward pass in bfloat16 where that is safe (torch's autocast); weights stay float32
compile        the network as one graph to torch.compile, once per shape
checkpointing  what of the forward pass is made again in the backward pass

Geometry is float64 under all of them (models/rays.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from models.checkpointing import set_checkpointing
from training.ranks import distribute
from training.settings import CameraTrainingSettings, Precision


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """Matrix products and convolutions of float32 numbers as `precision` has them, inside; for the whole process."""
    kept = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(kept[0])
        torch.backends.cudnn.allow_tf32 = kept[1]


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A forward pass inside runs in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def trained(network: nn.Module, config: CameraTrainingSettings) -> nn.Module:
    """What to call instead of `network` in a step: compiled and on all ranks (see `distribute`), as the config asks.

    The network itself stays what it is, for evaluation and for files. On CUDA the weights of convolutions come to lie
    channels-last, as the maps do.
    """
    set_checkpointing(network, config.checkpointing)
    if next(network.parameters()).is_cuda:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own stubs lack it
    if not config.compile:
        return distribute(network)
    # Inside of what averages gradients, which would break the graph to send some of them early.
    return distribute(network, _compiled)


def _compiled(network: nn.Module) -> nn.Module:
    # A step has one shape; another would be a graph of its own rather than one for all sizes.
    made: nn.Module = torch.compile(network, fullgraph=True, dynamic=False)  # type: ignore[assignment]
    return made
