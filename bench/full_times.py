"""Seconds and memory of the commands that look at a whole dataset, and microseconds of what a sample costs.

    python bench/full_world.py /tmp/full --results /tmp/found.json
    python bench/full_times.py /tmp/full --results /tmp/found.json [--devkit] [--root /tmp/full-root]
    python bench/full_times.py /tmp/full --parts  # where an ingest spends it

Each command runs once, in a new root, as a process of its own: seconds by the clock, of CPU, and the largest memory of
any one process. `--devkit` adds its evaluation, which takes minutes and 11 GB at nuScenes' size. On a machine that does
something else the seconds by the clock say little.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from storage.index import SCHEMA, Index  # noqa: E402

GEOMIM = str(Path(sys.executable).with_name("geomim"))


def timed(name: str, *words: object) -> None:
    """Run `geomim` with these words and print what it took."""
    start = time.monotonic()
    with subprocess.Popen([GEOMIM, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{name}: exit code {process.returncode}\n{said.decode()}")
    seconds, cpu, megabytes = time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000
    print(f"{name:<40} {seconds:8.1f} s {cpu:8.1f} s of CPU {megabytes:8.0f} MB", flush=True)


def each(what: str, of: Callable[[int], Any], samples: np.ndarray) -> None:
    """What a call a sample takes, the median of five rounds over these samples."""
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for sample in samples:
            of(sample)
        rounds.append((time.perf_counter() - start) / len(samples))
    print(f"{what:<40} {1e6 * float(np.median(rounds)):8.1f} us a sample", flush=True)


def of_a_sample(artifact: Path) -> None:
    start = time.perf_counter()
    index = Index.open(artifact / "index.zarr")
    print(f"{'an index opened':<40} {1e3 * (time.perf_counter() - start):8.1f} ms", flush=True)
    start = time.perf_counter()
    for name in SCHEMA:
        getattr(index, name)
    print(f"{'every array of it':<40} {time.perf_counter() - start:8.1f} s", flush=True)
    samples = np.random.default_rng(0).integers(0, len(index), 2000).tolist()
    each("its boxes", lambda i: index.box_center[index.box_rows(i)], samples)
    each("camera_to_global", index.camera_to_global, samples)
    each("lidar_to_global", index.lidar_to_global, samples)
    print(f"{len(index)} samples, {len(index.box_label)} boxes")


def parts(dataroot: Path, version: str, out: Path) -> None:
    """An ingest in this process: seconds and CPU of its parts, and the memory at most by the end of each."""
    from dataroot import read
    from storage.artifact import Artifact
    from tasks.engine.stage import Inputs
    from tasks.ingest import run
    from tasks.ingest.config import IngestConfig

    of_read = ("read_tables", "resolve", "select", "check_tables", "check_categories")
    of_run = ("build_arrays", "check_plausible", "check_files", "check_sight", "write_index")
    for module, names in ((read, of_read), (run, of_run)):
        for name in names:
            setattr(module, name, told(getattr(module, name)))
    artifact = Artifact(out, "ingest", "parts")
    artifact.path.mkdir(parents=True)
    run.run(IngestConfig(), Inputs(dataroot, version, {}), artifact)
    shutil.rmtree(out)


def told(part: Callable[..., Any]) -> Callable[..., Any]:
    """The same, and a line of what it took."""

    def timed_part(*args: Any) -> Any:
        start, cpu = time.monotonic(), time.process_time()
        made = part(*args)
        took = f"{time.monotonic() - start:8.1f} s {time.process_time() - cpu:8.1f} s of CPU"
        print(f"{part.__name__:<40} {took} {getrusage(RUSAGE_SELF).ru_maxrss / 1000:8.0f} MB", flush=True)
        return made

    return timed_part


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataroot", type=Path)
    parser.add_argument("--version", default="v1.0-trainval")
    parser.add_argument("--results", type=Path, help="a results file to evaluate")
    parser.add_argument("--devkit", action="store_true", help="evaluate it by the devkit, too")
    parser.add_argument("--root", type=Path, default=Path("/tmp/full-root"), help="a folder to make and remove")
    parser.add_argument("--parts", action="store_true", help="an ingest by its parts, and nothing else")
    options = parser.parse_args()
    if options.parts:
        parts(options.dataroot, options.version, options.root)
        return
    data = ["--dataroot", options.dataroot, "--version", options.version]
    plan = [*data, "--root", options.root]
    if options.root.exists():
        parser.error(f"{options.root} is there already; name another folder or remove it")
    picture = options.root / "sample.png"
    print(f"load average before: {os.getloadavg()[0]:.1f}")
    timed("ingest", "ingest", *plan)
    timed("ingest, cached", "ingest", *plan)
    timed("status", "status", *plan)
    timed("run --dry-run", "run", "--dry-run", *plan)
    (artifact,) = (manifest.parent for manifest in options.root.glob("ingest/*/manifest.json"))
    timed("inspect INDEX", "inspect", artifact)
    timed("inspect INDEX --sample --png", "inspect", artifact, "--sample", 0, "--png", picture)
    timed("inspect DATAROOT --sample --png", "inspect", *data[1:2], "--sample", 0, "--png", picture, *data[2:])
    timed("verify", "verify", "--root", options.root)
    if options.results:
        timed("evaluate --quick", "evaluate", options.results, *data, "--quick")
        if options.devkit:
            timed("evaluate, by the devkit", "evaluate", options.results, *data)
    of_a_sample(artifact)
    size = sum(file.stat().st_size for file in artifact.rglob("*") if file.is_file())
    print(f"index on disk: {size / 1e6:.1f} MB; load average after: {os.getloadavg()[0]:.1f}")
    shutil.rmtree(options.root)


if __name__ == "__main__":
    main()
