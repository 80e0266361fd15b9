"""Reading checkpoint files: tensors only, never code."""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.lidar.checkpoint import CheckpointMismatch, load_encoder
from models.lidar.encoder import SparseEncoder
from tasks.errors import UserError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a .safetensors file or of a torch checkpoint, whose `state_dict` is taken where it has one.

    Raises UserError for a file that is missing, broken, or would run code when read.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint; set teacher.weights to a file, fit or random")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: refused, since it holds more than tensors ({reason})") from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: is no whole checkpoint ({' '.join(str(error).split())[:200]})") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise UserError(f"{path}: holds no tensors by name")
    return tensors


def fill_encoder(encoder: SparseEncoder, path: Path) -> list[str]:
    """Load a checkpoint's encoder in place; the names of the tensors it has no use for. Raises UserError."""
    try:
        return load_encoder(encoder, read_tensors(path))
    except CheckpointMismatch as error:
        raise UserError(f"{path}: does not fit the network of `lidar:`: {error}") from None
