"""Reading and writing checkpoint files: tensors only, never code."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from common.errors import UserError


class _Ignored:
    """Stands for an object of a training log: it takes whatever state the file gives it, and nobody asks for it."""

    def __setstate__(self, state: Any) -> None:
        pass


def _no_attribute(*_: Any) -> None:
    """Stands for `getattr`, by which a log buffer names its own methods: looks nothing up."""


# What checkpoints hold beside tensors: mmengine's the numbers of the training log, MixMAE's the arguments of the run.
# Code of mmengine or of the file is never run: its names lead to the two stand-ins above.
_ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Ignored, "mmengine.logging.history_buffer.HistoryBuffer"),
    (_Ignored, "argparse.Namespace"),
    (_no_attribute, "builtins.getattr"),
    *(
        (getattr(np.core.multiarray, name), f"numpy.{core}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for core in ("core", "_core")
    ),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "U")),
]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a .safetensors file or of a torch checkpoint.

    Of a torch checkpoint's parts the running mean of the weights is taken where there is one (`state_dict_ema`), else
    its `state_dict` or `model`.

    Raises UserError for a file that is missing, broken, or would run code when read.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint; name a .safetensors file or one of torch")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
        else:
            with torch.serialization.safe_globals(_ALLOWED):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: {_refusal(path, error)}") from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: is no whole checkpoint ({' '.join(str(error).split())[:200]}); copy or download it again"
        ) from None
    for inner in ("state_dict_ema", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(inner), dict):
            content = content[inner]
            break
    items = content.items() if isinstance(content, dict) else ()
    tensors = {name: value for name, value in items if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path}: holds no tensors by name")
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """The text that a .safetensors file carries beside its tensors; empty for other files."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: its header is damaged ({reason}); copy or download it again") from None


def _refusal(path: Path, error: Exception) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not even a pickle
        names = []
    known = {entry[1] for entry in _ALLOWED if isinstance(entry, tuple)} | {"numpy.dtype", "numpy.ndarray"}
    foreign = sorted(set(names) - known)
    if not foreign:
        return f"is no checkpoint that torch reads ({' '.join(str(error).split())[:200]})"
    return (
        f"refused: reading it would run code of its own ({', '.join(foreign[:5])}); "
        "save its state_dict alone, or get the file from a source you trust"
    )
