"""The tiny world of the tests, finished, to be broken in copies; and a line of counts for what came of it."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests" / "support"))

import numpy as np  # noqa: E402

from contents import contents_of  # noqa: E402,F401
from driver import TINY, Cli, environment  # noqa: E402

STAGES = ("ingest", "fit", "teacher", "depth", "pretrain", "finetune", "evaluate")
COMMANDS = {"evaluate": "finetune"}  # where it is not the stage's own name
OFTEN = [f"--set={stage}.seconds_between_saves=0.01" for stage in ("fit", "pretrain", "finetune")]


@dataclass
class Line:
    """What was done how often, and how often it went wrong."""

    fault: str
    done: int = 0
    told: dict[str, int] = field(default_factory=dict)  # how it ended -> how often
    wrong: list[str] = field(default_factory=list)

    def count(self, how: str) -> None:
        self.told[how] = self.told.get(how, 0) + 1

    def __str__(self) -> str:
        told = ", ".join(f"{count} {how}" for how, count in sorted(self.told.items())) or "-"
        return f"| {self.fault} | {self.done:,} | {told} | {len(self.wrong)} |"


class World:
    """The tiny world, a root in which everything is finished, and roots of one's own to break."""

    def __init__(self, folder: Path):
        self.folder = folder
        subprocess.run(
            [Path(sys.executable).with_name("geomim"), "simulate", folder / "data", "--config", TINY],
            check=True,
            env=environment(),
            capture_output=True,
        )
        self.whole = Cli(folder / "data", folder / "whole")
        self.whole("run")

    @contextlib.contextmanager
    def copy(self) -> Iterator[Cli]:
        place = Path(tempfile.mkdtemp(dir=self.folder))
        shutil.copytree(self.whole.root, place / "root", ignore=shutil.ignore_patterns(".prefect*"))
        try:
            yield Cli(self.whole.dataroot, place / "root")
        finally:
            shutil.rmtree(place)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
