"""Numbers of the code's own on the device that computes with them."""

from functools import cache

import torch
from torch import Tensor


@cache
def constant(values: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`values` as a tensor that all share and none may change.

    Moved once: a copy from ordinary memory makes the host wait for a GPU's whole queue.
    """
    with torch.inference_mode(False):  # whoever asks first: a training may be the next
        return torch.tensor(values, dtype=dtype, device=device)
