"""One training on a GPU at a time, whoever starts it and for whatever root: two share its memory badly, or not at all.

The lock is the machine's: a file a GPU in its folder for temporary files. It goes with the process that holds it.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from common.progress import say
from storage.lock import locked
from tasks.engine.stage import Step


@contextmanager
def device_alone(step: Step) -> Iterator[None]:
    """Wait until nobody else works on the GPUs that the step's `device` names, and keep them inside.

    A CPU is shared: its scheduler is made for that.
    """
    device = getattr(step.config, "device", "cpu") if step.stage.on_device else "cpu"
    with alone(gpus(device), step.command or f"geomim {step.stage.name}", step.stage.name):
        yield


@contextmanager
def alone(names: list[str], what: str, stage: str, folder: Path | None = None) -> Iterator[None]:
    """Hold the locks of GPUs by name, taken in one order, so that no two wait for each other."""
    folder = folder or Path(tempfile.gettempdir()) / f"geomim-{os.getuid()}"
    with ExitStack() as stack:
        for name in sorted(names):
            stack.enter_context(locked(folder / name, what, waiting=lambda line: say(f"{stage}: {line}")))
        yield


def gpus(device: str) -> list[str]:
    """Names for the GPUs behind a `device` field, the same in every process of the machine; none for a CPU."""
    if device == "cpu":
        return []
    import torch  # a stage with a device imports it anyway

    if not torch.cuda.is_available():
        return []
    # Not asked of the GPUs themselves: that would take memory on each for as long as this process lives.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    names = [f"gpu-{name.strip()}" for name in visible.split(",")]
    _, _, number = device.partition(":")
    return names[int(number) : int(number) + 1] if number.isdigit() else names
