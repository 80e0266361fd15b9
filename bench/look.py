"""`geomim inspect` and its first picture on a teacher's cache of many samples, beside a bare interpreter.

    python bench/look.py artifacts/teacher/0123456789abcdef [--samples 1000] [--rounds 5]

The artifact's samples are repeated, under other tokens, to so many in a root of its own, which is removed at the end;
images and points are those of its dataroot. Whole processes; least and median of the rounds, s.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gallery.opened import Opened, open_artifact
from storage.artifact import Artifact
from storage.bev import BevWriter
from storage.index import SCHEMA, IndexAttributes, write_index

GEOMIM = Path(sys.executable).with_name("geomim")


def repeated(opened: Opened, samples: int, root: Path) -> Path:
    """The artifact of `samples` samples, its index beside it."""
    assert opened.step is not None
    assert opened.bev is not None
    index, rows = opened.index, np.arange(samples) % len(opened.index)
    counts = np.diff(index.box_offsets)[rows]
    boxes = np.concatenate([np.r_[index.box_rows(row)] for row in rows])
    arrays = {}
    for name, (_, dimensions) in SCHEMA.items():
        value = getattr(index, name)
        chosen = {"sample": rows, "box": boxes}.get(dimensions[0])
        arrays[name] = value if chosen is None else value[chosen]
    arrays["box_offsets"] = np.concatenate([[0], np.cumsum(counts)])
    arrays["token"] = np.array([f"{place:032x}" for place in range(samples)], object)
    arrays["previous"] = np.full(samples, -1)
    step = opened.step
    ingest, teacher = (Artifact(root, a.stage, a.key) for a in (step.inputs["ingest"], step.artifact))
    shutil.copytree(step.inputs["ingest"].path, ingest.path)
    write_index(
        ingest.path / "index.zarr",
        arrays,
        IndexAttributes(index.version, index.cameras, index.classes, index.split_names, index.lidar_columns),
    )
    teacher.begin(step.recipe)
    reader = opened.bev
    writer = BevWriter(teacher.path / "bev.zarr", arrays["token"], reader.shape, reader.attributes)
    for part in range(writer.parts.count):
        maps = [reader.dense(int(rows[place])) for place in writer.samples(part)]
        writer.write(part, np.stack(maps))
    made = opened.manifest.made if opened.manifest else {}
    teacher.finish(step.recipe, {"samples": samples}, 0.0, made | {"step": made["step"] | {"root": str(root)}})
    return teacher.path


def seconds(command: list[str], rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = repeated(open_artifact(options.artifact), options.samples, Path(folder) / "root")
        picture = ["--sample", str(options.samples // 2), "--png", f"{folder}/sample.png"]
        commands = {
            "bare interpreter": [sys.executable, "-c", ""],
            "inspect": [str(GEOMIM), "inspect", str(path)],
            "inspect --sample --png": [str(GEOMIM), "inspect", str(path), *picture],
        }
        for name, command in commands.items():
            taken = seconds(command, options.rounds)
            print(f"{name:24} {min(taken):6.2f} {statistics.median(taken):6.2f}")


if __name__ == "__main__":
    main()
