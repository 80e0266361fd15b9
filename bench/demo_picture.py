"""docs/demo.webp: the boxes that the LiDAR teacher and the demo's camera detector find in one sample of val.

    python bench/demo_picture.py [--root artifacts] [--out docs/demo.webp] [--best 3]

After `make demo`. Boxes that score above SCORE; the sample is among the best of val, see `--best`.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from batches.detector import Batches
from batches.frames import boxes_in_lidar
from batches.voxels import LidarBatches
from evaluation.misses import misses
from evaluation.picture import draw_detections
from storage.index import Index
from tasks.checkpoints import read_tensors
from tasks.engine.config import PRESETS, load_config
from tasks.engine.plan import make_plan
from tasks.finetune.detect import detect as detect_by_cameras
from tasks.finetune.network import build_detector
from tasks.finetune.run import WEIGHTS
from tasks.teacher.fit import detect as detect_by_lidar
from tasks.teacher.network import build_detector as build_lidar_detector

SCORE, WIDTH, TITLE, GROUND = 0.35, 1600, 26, (18, 18, 22)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("artifacts"))
    parser.add_argument("--out", type=Path, default=Path("docs/demo.webp"))
    parser.add_argument("--best", type=int, default=3, help="1 is the sample with most right and fewest false boxes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(PRESETS / "demo.yaml")
    steps = {planned.name: planned.ready() for planned in make_plan(config, options.root)}
    index, dataroot = Index.open(steps["ingest"].artifact.path / "index.zarr"), Path(config.dataroot)
    val = index.samples("val")

    student = build_detector(config.finetune, config.evaluate)
    student.load_state_dict(read_tensors(steps["finetune"].artifact.path / WEIGHTS))
    results = detect_by_cameras(student, config.finetune, Batches(config.finetune, index, dataroot), val)
    seen = {sample: boxes_in_lidar(index, sample, boxes) for sample, boxes, _ in results}
    teacher = build_lidar_detector(config.fit)
    teacher.load_state_dict(read_tensors(Path(config.teacher.weights)))
    felt = detect_by_lidar(teacher, LidarBatches(config.fit, index, dataroot), val)

    told = {sample: misses(index, sample, boxes, SCORE, always=0) for sample, boxes in seen.items()}
    worth = {sample: len(found.correct) - 0.7 * len(found.false) for sample, found in told.items()}
    sample = sorted(worth, key=lambda s: (worth[s], s))[-options.best]
    tiles = []
    with tempfile.TemporaryDirectory() as folder:
        for title, boxes in (("LiDAR teacher", felt), ("camera student", seen)):
            found = misses(index, sample, boxes[sample], SCORE, always=0)
            print(f"{title}: {len(found.correct)} right, {len(found.false)} false, {len(found.missed)} missed")
            draw_detections(Path(folder) / "one.png", index, dataroot, sample, found)
            tiles.append((title, Image.open(Path(folder) / "one.png").convert("RGB")))
    _, first = tiles[0]
    out = Image.new("RGB", (first.width, 2 * (first.height + TITLE)), GROUND)
    draw = ImageDraw.Draw(out)
    for place, (title, tile) in enumerate(tiles):
        draw.text((8, place * (tile.height + TITLE) + 3), title, (235, 235, 235), font=ImageFont.load_default(18))
        out.paste(tile, (0, place * (tile.height + TITLE) + TITLE))
    out = out.resize((WIDTH, round(out.height * WIDTH / out.width)), Image.Resampling.LANCZOS)
    out.save(options.out, quality=86, method=6)


if __name__ == "__main__":
    main()
