"""The state of an interrupted training run, written whole or not at all."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from storage.atomic import write_bytes


class Checkpoint:
    """One file that a run overwrites as it goes. Going on from it ends, on a CPU, bit for bit as a run without a stop.

    What is random in a step should follow from the seed and the step's number (see `order.py`); what cannot (drop path,
    dropout) draws from torch's global generator, whose state is part of the file.
    """

    def __init__(self, path: Path):
        self.path = Path(path)

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, extra: dict[str, Any] | None = None):
        """`step` steps are done. `extra`: tensors, numbers, text, and lists and dicts of them."""
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": random}
        file = io.BytesIO()
        torch.save(state | {"extra": extra or {}}, file)
        write_bytes(self.path, file.getvalue())

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
        """Restore model, optimizer and random state; (steps done, extra), or (0, {}) where there is no checkpoint."""
        if not self.path.is_file():
            return 0, {}
        device = next(model.parameters()).device
        state = torch.load(self.path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"]["cpu"].cpu())
        if device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"].cpu())
        return state["step"], state["extra"]

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
