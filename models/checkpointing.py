"""What the forward pass of a training does not keep, and the backward pass makes again: less memory, more time."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

# Nothing; the activations of MLPs, the largest and cheapest of what a block keeps; all of a block but its inputs.
Checkpointing = Literal["none", "mlp", "block"]


def set_checkpointing(model: "nn.Module", what: Checkpointing) -> None:
    """Tell every part of a network that asks."""
    for module in model.modules():
        if hasattr(module, "checkpointing"):
            setattr(module, "checkpointing", what)  # noqa: B010  # else to mypy it is one of the layers
