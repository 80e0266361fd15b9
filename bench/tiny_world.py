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
import zarr  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

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


def contents_of(folder: Path) -> dict[str, np.ndarray]:
    """All that counts in an artifact: the arrays of its stores and weights, or what an evaluation found.

    (The scores that `fit` adds to its weights differ in last digits between the process that trained them and one that
    loaded them: other layouts in memory, other kernels.)
    """
    found = {}
    for store in sorted(folder.glob("*.zarr")):
        for name, array in zarr.open_group(str(store), mode="r").arrays():
            found[f"{store.name}/{name}"] = array[...]
    for file in sorted(folder.rglob("*.safetensors")):
        found |= {f"{file.relative_to(folder)}/{name}": value for name, value in load_file(file).items()}
    for file in sorted(folder.glob("results_*.json")) if not found else ():
        found[file.name] = np.frombuffer(file.read_bytes(), np.uint8)
    return found


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
