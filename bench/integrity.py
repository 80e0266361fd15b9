"""What checksums and fsync cost: writing, reading and checking stores with and without, as a Markdown table.

    python bench/integrity.py [--samples 32] [--rounds 7]

Maps of 256 x 180 x 180 cells, a sixth of them active, and 300,000 points a sample in six cameras, drawn at random from
one seed. Medians of rounds in turn, so that a busy machine slows all alike; reads from the page cache. "Without" means
that every CRC32C is taken to be right and none is computed; the files have the same size.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from storage.bev import BevAttributes, BevReader, BevWriter  # noqa: E402
from storage.depth import DepthReader, DepthWriter, SamplePoints  # noqa: E402
from storage.manifest import record  # noqa: E402
from storage.stores import open_part_store  # noqa: E402

CAMERAS = ("FRONT", "FRONT_RIGHT", "FRONT_LEFT", "BACK", "BACK_LEFT", "BACK_RIGHT")
SHAPE, PART = (256, 180, 180), 16
MAPS = BevAttributes(point_range=(-54.0, -54.0, -5.0, 54.0, 54.0, 3.0), cell_size=(0.6, 0.6), part_size=PART)


@contextlib.contextmanager
def checking(checksums: bool, fsync: bool) -> Iterator[None]:
    """Computes checksums and brings files to the disk, or leaves either out."""
    with contextlib.ExitStack() as stack:
        if not checksums:
            for place in ("storage.checksum.crc32c", "storage.part_store.crc32c"):
                stack.enter_context(patch(place, lambda data, before=0: 0))
            for place in ("storage.shards.checked", "storage.part_store.checked"):
                stack.enter_context(patch(place, lambda data: data))
        if not fsync:
            stack.enter_context(patch("os.fsync", lambda number: None))
        yield


def maps(random: np.random.Generator) -> list[np.ndarray]:
    """A part's, most of whose values are 0 as behind a ReLU."""
    out = []
    for _ in range(PART):
        bev = np.zeros(SHAPE, np.float16)
        active = random.random(SHAPE[1:]) < 1 / 6
        values = np.maximum(random.normal(size=(SHAPE[0], active.sum())), 0)
        bev[:, active] = values.round(3)
        out.append(bev)
    return out


def points(random: np.random.Generator) -> list[SamplePoints]:
    """A part's."""
    out = []
    for _ in range(PART):
        u, v, depth = random.uniform(0, 1600, (3, 300_000)).astype(np.float32)
        sweep = np.sort(random.integers(0, 10, 300_000)).astype(np.uint8)
        out.append(SamplePoints(u, v, depth, sweep, np.linspace(0, 300_000, 7).astype(np.int64)))
    return out


def write_maps(path: Path, samples: int, made: list[np.ndarray]) -> None:
    writer = BevWriter(path, [f"sample{s}" for s in range(samples)], SHAPE, MAPS)
    for part in writer.parts.pending():
        writer.write(part, made[: len(writer.samples(part))])


def write_points(path: Path, samples: int, made: list[SamplePoints]) -> None:
    writer = DepthWriter(path, [f"sample{s}" for s in range(samples)], CAMERAS, 10, PART, most=300_000)
    for part in writer.parts.pending():
        writer.write(part, made[: len(writer.samples(part))])


def read_maps(path: Path) -> None:
    reader = BevReader(path)
    for sample in range(len(reader)):
        reader.cells(sample)


def read_points(path: Path) -> None:
    reader = DepthReader(path)
    for sample in range(len(reader)):
        reader.read(sample)


def verify(path: Path) -> None:
    store = open_part_store(path)
    assert not any(store.damage(part) for part in range(store.parts.count))


def digest(path: Path) -> None:
    """What `finish` does for the manifest."""
    for file in path.rglob("*"):
        if file.is_file():
            record(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    random = np.random.default_rng(0)
    ways = {"without": (False, False), "checksums": (True, False), "and fsync": (True, True)}
    print("| | MB | without, ms a sample | with checksums | and fsync |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name, made, write, read in (
            ("bev.zarr", maps(random), write_maps, read_maps),
            ("depth.zarr", points(random), write_points, read_points),
        ):
            times: dict[tuple[str, str], list[float]] = {}
            size = 0.0
            for number in range(args.rounds):
                for way, (checksums, fsync) in ways.items():
                    path = Path(folder) / f"{number}-{way}" / name
                    work: dict[str, Callable[[], None]] = {
                        "write": lambda path=path: write(path, args.samples, made),  # noqa: B023
                        "read": lambda path=path: read(path),  # noqa: B023
                    }
                    if checksums:
                        work |= {
                            "verify": lambda path=path: verify(path),
                            "digests of the manifest": lambda path=path: digest(path),
                        }
                    with checking(checksums, fsync):
                        for what, do in work.items():
                            start = time.perf_counter()
                            do()
                            times.setdefault((what, way), []).append(time.perf_counter() - start)
                    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
            for what in ("write", "read", "verify", "digests of the manifest"):
                cells = [
                    f"{statistics.median(times[what, way]) / args.samples * 1000:.2f}" if (what, way) in times else ""
                    for way in ways
                ]
                print(f"| {name}: {what} | {size:.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
