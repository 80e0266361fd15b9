"""Six JPEGs of a key frame to the network's input, against Pillow as the original uses it; samples per second.

    python bench/images.py KEYFRAME [--rounds 15] [--world DATAROOT INDEX.zarr [--caches BEV.zarr DEPTH.zarr]]

KEYFRAME: a folder with a JPEG of 1600x900 in samples/CAM_*/, such as nuScenes itself. All ways take turns, round by
round, with the draws of that round's augmentation. Times are medians of one thread's CPU time for six images, so that
other jobs on the machine count little; samples per second are by the clock. `--world` goes through an index with more
and more loaders: images alone, or whole pretraining samples where there are caches.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from batches.geomim import GeoMIMBatches  # noqa: E402
from batches.images import (  # noqa: E402
    MEAN,
    STD,
    ImageConfig,
    ImageDraw,
    apply_draw,
    decode,
    draw_training,
    load_image,
    normalise,
    resized,
)
from batches.masked import MaskedImages  # noqa: E402
from storage.bev import BevReader  # noqa: E402
from storage.depth import DepthReader  # noqa: E402
from storage.index import Index  # noqa: E402
from tasks.pretrain.config import PretrainConfig  # noqa: E402
from training.order import generator_at, positions_at, sample_at  # noqa: E402
from training.prefetch import Prefetcher  # noqa: E402

CONFIG = ImageConfig()
SOURCE = (1600, 900)
SECONDS = 5.0  # a number of loaders

Way = Callable[[Path, ImageDraw], object]


def pillow(path: Path, draw: ImageDraw) -> np.ndarray:
    """Decode all pixels, resize all, cut, mirror, rotate."""
    with Image.open(path) as image:
        out = image.convert("RGB").resize(resized(SOURCE, draw.resize), Image.Resampling.BICUBIC)
    left, top = draw.crop
    out = out.crop((left, top, left + CONFIG.size[1], top + CONFIG.size[0]))
    if draw.flip:
        out = out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(out.rotate(draw.rotate, Image.Resampling.NEAREST))


def pillow_normalised(path: Path, draw: ImageDraw) -> np.ndarray:
    """And to float32, as the original's loader hands images over."""
    return ((pillow(path, draw).astype(np.float32) - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1).copy()


def whole(path: Path, draw: ImageDraw) -> np.ndarray:
    return apply_draw(decode(path.read_bytes()), draw, CONFIG.size, SOURCE)


def scaled(path: Path, draw: ImageDraw) -> np.ndarray:
    return load_image(path, draw, CONFIG.size, SOURCE)


def scaled_normalised(path: Path, draw: ImageDraw) -> torch.Tensor:
    return normalise(torch.tensor(scaled(path, draw)))


WAYS: dict[str, Way] = {
    "Pillow, normalised (original)": pillow_normalised,
    "Pillow": pillow,
    "whole decode": whole,
    "load_image": scaled,
    "load_image, normalised": scaled_normalised,
}


def at_eighths(eighths: int) -> Way:
    """Decoded at a given scale."""
    least = tuple(-(-side * eighths // 8) for side in SOURCE)
    return lambda path, draw: apply_draw(decode(path.read_bytes(), least), draw, CONFIG.size, SOURCE)


def measured(ways: dict[str, Way], images: list[Path], rounds: list[list[ImageDraw]]) -> dict[str, float]:
    """Median CPU time (ms) of each way."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for draws in rounds:
        for name, way in ways.items():
            start = time.thread_time()
            for path, draw in zip(images, draws, strict=True):
                way(path, draw)
            times[name].append(1e3 * (time.thread_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def print_images(images: list[Path], count: int) -> None:
    random = np.random.default_rng(0)
    rounds = [[draw_training(CONFIG, SOURCE, random) for _ in images] for _ in range(count)]
    found = measured(WAYS, images, rounds)
    first = found[next(iter(found))]
    print("\n| six images to 256x704 | ms | times as fast |\n|---|---|---|")
    for name, ms in found.items():
        print(f"| {name} | {ms:.1f} | {first / ms:.2f} |")
    errors = [
        np.abs(scaled(path, draw).astype(int) - pillow(path, draw)).mean()
        for draws in rounds[:3]
        for path, draw in zip(images, draws)
    ]
    print(f"\nload_image against Pillow: {np.mean(errors):.2f} of 255 off, {max(errors):.2f} in the worst image")

    scales = range(4, 9)
    print("\n| resize | " + " | ".join(f"decoded at {eighths}/8" for eighths in scales) + " |")
    print("|---" * (1 + len(scales)) + "|")
    for resize in (0.38, 0.44, 0.5, 0.55):
        width, height = resized(SOURCE, resize)
        draw = ImageDraw(resize, (max(0, width - CONFIG.size[1]) // 2, height - CONFIG.size[0]))
        ways = {str(eighths): at_eighths(eighths) for eighths in scales if eighths / 8 >= resize}
        found = measured(ways, images, [[draw] * len(images)] * count)
        cells = (f"{found[str(eighths)]:.1f} ms" if str(eighths) in found else "" for eighths in scales)
        print(f"| {resize} | {' | '.join(cells)} |")


def print_loaders(dataroot: Path, index: Index, caches: list[Path] | None) -> None:
    samples = np.arange(len(index))
    batches = None
    if caches:
        config = PretrainConfig(batch_size=1)
        masked = MaskedImages(config, config.method, index, dataroot)
        batches = GeoMIMBatches(masked, config.method, BevReader(caches[0]), DepthReader(caches[1]))

    def load(step: int) -> object:
        if batches is not None:
            return batches.training_at(positions_at(step, 1), samples)
        sample, random = sample_at(step, samples, 0), generator_at(step, 0)
        sizes = [tuple(size) for size in index.image_size[sample].tolist()]
        draws = [draw_training(CONFIG, size, random) for size in sizes]
        paths = [dataroot / str(path) for path in index.camera_path[sample]]
        return [load_image(path, draw, CONFIG.size, size) for path, draw, size in zip(paths, draws, sizes)]

    print(f"\n| loaders | {'pretraining samples' if caches else 'samples, images alone,'} a second |\n|---|---|")
    for loaders in (1, 2, 4):
        with Prefetcher(load, range(1 << 30), loaders, loaders + 1) as made:
            for _ in range(loaders + 1):
                next(made)
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < SECONDS:
                next(made)
                count += 1
            print(f"| {loaders} | {count / (time.perf_counter() - start):.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keyframe", type=Path, metavar="KEYFRAME")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--world", nargs=2, type=Path, metavar=("DATAROOT", "INDEX.zarr"))
    parser.add_argument("--caches", nargs=2, type=Path, metavar=("BEV.zarr", "DEPTH.zarr"))
    options = parser.parse_args()
    images = [min(folder.glob("*.jpg")) for folder in sorted(options.keyframe.glob("samples/CAM_*"))]
    if not images:
        parser.error(f"{options.keyframe}/samples has no CAM_*/*.jpg")
    torch.set_num_threads(1)
    print_images(images, options.rounds)
    if options.world:
        print_loaders(options.world[0], Index.open(options.world[1]), options.caches)


if __name__ == "__main__":
    main()
