"""The state of an interrupted training run, written whole or not at all."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from storage.atomic import write_bytes
from tasks.training.ema import Ema
from tasks.training.ranks import gathered, rank


class Checkpoint:
    """One file that a run overwrites as it goes. Going on from it ends, on a CPU, bit for bit as a run without a stop.

    What is random in a step should follow from the seed and the step's number (see `order.py`), as the order of the
    samples and the learning rate do; what cannot (drop path, dropout) draws from torch's global generator, whose state
    on every rank is part of the file. Another number of ranks may go on from it, with the same loss up to rounding.
    """

    def __init__(self, path: Path):
        self.path = Path(path)

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        extra: dict[str, Any] | None = None,
        ema: Ema | None = None,
    ) -> None:
        """`step` steps are done. Called on all ranks; rank 0 writes.

        extra: tensors, numbers, text, and lists and dicts of them.
        """
        random = gathered(_random_state())
        if rank():
            return
        state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": random}
        if ema is not None:
            state["ema"] = ema.model.state_dict()
        file = io.BytesIO()
        torch.save(state | {"extra": extra or {}}, file)
        write_bytes(self.path, file.getbuffer())

    def load(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Restore everything, on every rank; (steps done, extra), or (0, {}) where there is no checkpoint."""
        if not self.path.is_file():
            return 0, {}
        device = next(model.parameters()).device
        state = torch.load(self.path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if ema is not None:
            ema.model.load_state_dict(state["ema"])
        if rank() < len(state["random"]):  # a rank that was not there before keeps the state it was started with
            _set_random_state(state["random"][rank()], device)
        return state["step"], state["extra"]

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _random_state() -> dict[str, torch.Tensor]:
    return {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu())
