"""Training metrics as lines of JSON and as TensorBoard curves."""

import json
from pathlib import Path

from storage.atomic import write_bytes


class MetricLog:
    """`folder/metrics.jsonl` and TensorBoard's event files beside it.

    A run that goes on after `steps_done` steps drops what its predecessor logged after them (it will log it again), a
    half-written last line included.
    """

    def __init__(self, folder: Path, steps_done: int = 0):
        from torch.utils.tensorboard import SummaryWriter  # seconds of import, only where something is trained

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
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
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)


def _is_before(line: bytes, step: int) -> bool:
    try:
        return line.endswith(b"\n") and json.loads(line)["step"] < step
    except ValueError:
        return False
