"""Training metrics as lines of JSON and as TensorBoard curves."""

import json
from pathlib import Path
from typing import Any

from storage.atomic import write_bytes

LINES = "metrics.jsonl"


class MetricLog:
    """`folder/metrics.jsonl` and TensorBoard's event files beside it.

    A run that goes on after `steps_done` steps drops what its predecessor logged after them (it will log it again), a
    half-written last line included.
    """

    def __init__(self, folder: Path, steps_done: int = 0):
        from torch.utils.tensorboard import SummaryWriter  # seconds of import, only where something is trained

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LINES
        if path.is_file():
            write_bytes(
                path, b"".join(line for line in path.read_bytes().splitlines(True) if _is_before(line, steps_done))
            )
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed in __exit__)
        self._board = SummaryWriter(str(folder), purge_step=steps_done)

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._board.close()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """The metrics of step `step` (the first is 0)."""
        self.note(step, metrics)
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def note(self, step: int, values: dict[str, Any]) -> None:
        """What is no curve: a line of its own, of step `step`."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()


def omissions(folder: Path) -> dict[str, Any]:
    """Of the run that a log tells of, for a summary: `skipped_steps`, how many were not finite, and `skip_samples`, the
    tokens of those that the config left out; without what there was none of."""
    path = folder / LINES
    lines = [_read(line) for line in (path.read_bytes().splitlines() if path.is_file() else [])]
    steps = sum("skipped" in line for line in lines)
    tokens = sorted({token for line in lines for token in line.get("skip_samples", ())})
    return ({"skipped_steps": steps} if steps else {}) | ({"skip_samples": tokens} if tokens else {})


def _is_before(line: bytes, step: int) -> bool:
    return line.endswith(b"\n") and _read(line).get("step", step) < step


def _read(line: bytes) -> dict[str, Any]:
    """A line's values; {} of half a line, or of the zeros that a crash of the machine leaves."""
    try:
        values = json.loads(line)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
