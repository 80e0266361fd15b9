"""The state of an interrupted training run, written whole or not at all, and looked at before it is trusted."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.files import patiently
from common.progress import say
from storage.atomic import write_bytes
from storage.checksum import CRC_BYTES, CRC_RESIDUE, crc_of_file, crc_of_rest
from training.ema import Ema
from training.ranks import gathered, rank


class Checkpoint:
    """The last state of a run and, in a second file, the one before it, should the last be damaged.

    Going on from either ends, on a CPU, bit for bit as a run without a stop.

    What is random in a step should follow from the seed and the step's number (see `order.py`), as the order of the
    samples and the learning rate do; what cannot (drop path, dropout) draws from torch's global generator, whose state
    on every rank is part of the file. Another number of ranks may go on from it, with the same loss up to rounding.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.before = self.path.with_name(f"{self.path.name}.before")
        self._new = self.path.with_name(f"{self.path.name}.new")  # whole, and not yet in its place

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
        file.seek(0)
        file.write(crc_of_rest(file).to_bytes(CRC_BYTES, "little"))  # torch itself would load a flipped bit
        write_bytes(self._new, file.getbuffer())  # both others stay until it is whole
        self._put_in_place()

    def load(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Restore everything, on every rank; (steps done, extra), or (0, {}) where there is no checkpoint.

        A file that is not as it was written is removed, and that is told.
        """
        self._clear_after_kills()
        file, damaged = gathered(None if rank() else self._last_whole())[0]
        if file is None:
            self._tell(damaged, "training begins at step 0 again")
            return 0, {}
        # To the CPU first: a GPU need not hold all of it beside the model.
        state = torch.load(file, map_location="cpu", weights_only=True)
        self._tell(damaged, f"training goes back to step {state['step']}, where the checkpoint before it was written")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if ema is not None:
            ema.model.load_state_dict(state["ema"])
        if rank() < len(state["random"]):  # a rank that was not there before keeps the state it was started with
            _set_random_state(state["random"][rank()], next(model.parameters()).device)
        return state["step"], state["extra"]

    def _put_in_place(self) -> None:
        """The new one becomes the last, and the last the one before."""
        if self.path.is_file():
            os.replace(self.path, self.before)
        os.replace(self._new, self.path)

    def _last_whole(self) -> tuple[Path | None, list[Path]]:
        """(the file to go on from, those that were damaged and are removed)."""
        damaged: list[Path] = []
        for path in (self._new, self.path, self.before):
            if not path.is_file():
                continue
            if patiently(path, lambda: crc_of_file(path)) == CRC_RESIDUE:  # noqa: B023 (called at once)
                if path == self._new:  # killed at the end of `save`
                    self._put_in_place()
                    return self.path, damaged
                return path, damaged
            path.unlink()
            damaged.append(path)
        return None, damaged

    def _tell(self, damaged: list[Path], what_now: str) -> None:
        if damaged and rank() == 0:
            say(f"{' and '.join(map(str, damaged))}: not as written, so removed; {what_now}")

    def _clear_after_kills(self) -> None:
        """Remove what a kill during `save` leaves: a file that is not yet whole, under `write_bytes`' name for it."""
        if rank() == 0:
            for leftover in self.path.parent.glob(f".{self.path.name}.*"):
                leftover.unlink()


def _random_state() -> dict[str, torch.Tensor]:
    return {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
