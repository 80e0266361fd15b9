"""Functions that torch.compile leaves alone, as a break in its graph or as an operator of it."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

Given = ParamSpec("Given")
Result = TypeVar("Result")


def uncompiled(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """torch.compiler.disable, which as a decorator imports the compiler, for seconds, where nothing is compiled."""

    @wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        chosen = torch.compiler.disable(function) if torch.compiler.is_compiling() else function
        return chosen(*args, **kwargs)

    return call


def operator(
    schema: str, made_like: Callable[Given, Tensor]
) -> Callable[[Callable[Given, Tensor]], Callable[Given, Tensor]]:
    """An operator of torch's own kind, `geomim::` and the schema: a compiler calls it, and does not look inside.

    For what is data to a network: it has no gradient. made_like: a tensor of the result's shape, type and device.
    """

    def register(function: Callable[Given, Tensor]) -> Callable[Given, Tensor]:
        name, signature = schema.split("(", 1)
        # By hand, since torch.library.custom_op imports SymPy at its first call.
        torch.library.define(f"geomim::{name}", f"({signature}")
        torch.library.impl(f"geomim::{name}", "CompositeExplicitAutograd")(function)
        torch.library.register_fake(f"geomim::{name}")(made_like)
        made = getattr(torch.ops.geomim, name)

        @wraps(function)
        def call(*args: Given.args, **kwargs: Given.kwargs) -> Tensor:
            with torch.no_grad():
                return made(*args, **kwargs)

        return call

    return register
