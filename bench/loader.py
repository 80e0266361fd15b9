"""A pretraining sample on one core, part by part, beside the obvious way; and how many cores one GPU needs.

    python bench/loader.py KEYFRAME [--rounds 30] [--workers]

KEYFRAME: a folder in nuScenes format with one key frame of 1600x900 JPEGs and a sweep. Its caches are made as large as
nuScenes' are: eleven sweeps (the one, moved half a metre a time) of depth, and a BEV map of 256 x 180 x 180 with a
sixth of its cells active, of random features. The two ways take turns, round by round, with the same draws; times are
means of the CPU time of all threads, the slowest twentieth left out. The obvious way: Pillow, zarr-python,
whole maps. `--workers` adds samples a second by the clock, loaded by threads and by processes.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import zarr  # noqa: E402
from PIL import Image  # noqa: E402
from scipy.ndimage import binary_dilation  # noqa: E402

from batches.depth_maps import depth_target  # noqa: E402
from batches.geomim import GeoMIMBatches  # noqa: E402
from batches.images import ImageDraw, apply_draw, draws_of, post_homography, resized, scale_of  # noqa: E402
from batches.masked import MaskedImages  # noqa: E402
from dataroot.images import read_image  # noqa: E402
from dataroot.points import read_cloud, without_car  # noqa: E402
from storage.bev import BevAttributes, BevReader, BevWriter  # noqa: E402
from storage.depth import DepthReader, DepthWriter  # noqa: E402
from storage.index import Index, write_index  # noqa: E402
from tasks.depth.config import DepthConfig  # noqa: E402
from tasks.depth.project import project_sample  # noqa: E402
from tasks.depth.run import sample_jobs  # noqa: E402
from tasks.ingest.config import IngestConfig  # noqa: E402
from tasks.ingest.run import ingest  # noqa: E402
from tasks.pretrain.config import PretrainConfig  # noqa: E402
from training.order import generator_at, positions_at  # noqa: E402
from training.prefetch import Prefetcher  # noqa: E402

GPU = 71  # samples a second of Swin-B at 256x704 that one GPU takes at 40 % of its peak
CONFIG = PretrainConfig(batch_size=1)
SIZE, STRIDE = CONFIG.image.size, CONFIG.backbone.strides[2]
SWEEPS, CHANNELS, SIDE, ACTIVE = 10, 256, 180, 1 / 6
SECONDS = 8.0  # of each number of workers


def make_world(keyframe: Path, folder: Path) -> None:
    """index.zarr, depth.zarr and bev.zarr in `folder`."""
    arrays, attributes, _ = ingest(keyframe, "v1.0-mini", IngestConfig())
    write_index(folder / "index.zarr", arrays, attributes)
    index, random = Index.open(folder / "index.zarr"), np.random.default_rng(0)
    (job,) = sample_jobs(index, keyframe, DepthConfig(), range(1))
    cloud = without_car(read_cloud(job.clouds[0], job.columns))
    clouds = [cloud.copy() for _ in range(SWEEPS + 1)]
    for number, moved in enumerate(clouds):
        moved[:, 1] -= 0.5 * number
    moving = np.repeat(job.cloud_to_camera[:1], len(clouds), 0)
    points = project_sample(clouds, moving, job.rig, job.min_depth, job.margin)
    part = DepthConfig().part
    most = sum(map(len, clouds))
    DepthWriter(folder / "depth.zarr", index.token, index.cameras, SWEEPS, part, most).write(0, [points])

    column, row = (np.clip((cloud[:, axis] + 54) / 0.6, 0, SIDE - 1).astype(int) for axis in (0, 1))
    active = np.zeros((SIDE, SIDE), bool)
    active[column, row] = True
    while active.mean() < ACTIVE:
        active = binary_dilation(active)
    bev = np.zeros((CHANNELS, SIDE, SIDE), np.float32)
    bev[:, active] = np.maximum(random.normal(size=(CHANNELS, active.sum())), 0).astype(np.float16)
    attributes = BevAttributes((-54.0, -54.0, -5.0, 54.0, 54.0, 3.0), (0.6, 0.6), part)
    BevWriter(folder / "bev.zarr", index.token, bev.shape, attributes).write(0, [bev])


def batches_of(keyframe: Path, folder: Path) -> GeoMIMBatches:
    index = Index.open(folder / "index.zarr")
    masked = MaskedImages(CONFIG, CONFIG.method, index, keyframe)
    return GeoMIMBatches(masked, CONFIG.method, BevReader(folder / "bev.zarr"), DepthReader(folder / "depth.zarr"))


# --- the obvious way ------------------------------------------------------------------------------------------------


def pillow_decoded(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def pillow_drawn(image: Image.Image, draw: ImageDraw) -> np.ndarray:
    """Resize all, cut, mirror, rotate: the original's lines."""
    left, top = draw.crop
    out = image.resize(resized(image.size, draw.resize), Image.Resampling.BICUBIC)
    out = out.crop((left, top, left + SIZE[1], top + SIZE[0]))
    if draw.flip:
        out = out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(out.rotate(draw.rotate, Image.Resampling.NEAREST))


def points_by_zarr(folder: Path) -> list[tuple[np.ndarray, ...]]:
    group = zarr.open_group(folder / "depth.zarr", mode="r")
    counts = group["count"][0]
    arrays = [group[name] for name in ("u", "v", "depth", "sweep")]
    return [tuple(array[0, camera, :count] for array in arrays) for camera, count in enumerate(counts)]


def dense_target(points: tuple[np.ndarray, ...], post: np.ndarray) -> np.ndarray:
    """A map of the image's size, and the nearest depth in each of its cells."""
    u, v, depth = (values[points[3] <= CONFIG.method.depth_sweeps] for values in points[:3])
    x, y = (post[:2, :2] @ np.stack([u, v]) + post[:2, 3:]).astype(int)
    inside = (x >= 0) & (x < SIZE[1]) & (y >= 0) & (y < SIZE[0])
    nearest = np.full(SIZE, np.inf, np.float32)
    np.minimum.at(nearest, (y[inside], x[inside]), depth[inside])
    cells = nearest.reshape(SIZE[0] // STRIDE, STRIDE, SIZE[1] // STRIDE, STRIDE).min((1, 3))
    return np.where(np.isinf(cells), 0, cells)


def map_by_zarr(folder: Path) -> np.ndarray:
    """The recipe of docs/bev-cache.md."""
    group = zarr.open_group(folder / "bev.zarr", mode="r")
    active = group["active"][0, 0]
    bev = np.zeros((*active.shape, group["value"].shape[3]), np.float16)
    bev[active] = group["value"][0, 0, : active.sum()]
    return bev


# --- measuring ------------------------------------------------------------------------------------------------------


class Times:
    """CPU milliseconds of this process, by way and part."""

    def __init__(self) -> None:
        self.of: dict[tuple[str, str], list[float]] = {}

    @contextmanager
    def part(self, way: str, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.of.setdefault((way, name), []).append(1e3 * (time.process_time() - start))

    def median(self, way: str, name: str) -> float:
        return statistics.median(self.of[way, name])

    def mean(self, way: str, name: str) -> float:
        """Of all but the slowest twentieth, which other jobs disturbed."""
        values = sorted(self.of[way, name])
        return statistics.fmean(values[: max(1, len(values) * 19 // 20)])


PARTS = ("JPEG", "resize, crop, mirror, rotate", "depth cache", "depth targets", "BEV cache")


def obvious(times: Times, folder: Path, paths: list[Path], draws: list[ImageDraw]) -> None:
    with times.part("obvious", PARTS[0]):
        whole = [pillow_decoded(path) for path in paths]
    with times.part("obvious", PARTS[1]):
        np.stack([pillow_drawn(image, draw) for image, draw in zip(whole, draws)])
    with times.part("obvious", PARTS[2]):
        points = points_by_zarr(folder)
    with times.part("obvious", PARTS[3]):
        np.stack([dense_target(of, post_homography(draw, SIZE)) for of, draw in zip(points, draws)])
    with times.part("obvious", PARTS[4]):
        map_by_zarr(folder)


def ours(times: Times, batches: GeoMIMBatches, paths: list[Path], draws: list[ImageDraw]) -> None:
    sizes = [tuple(size) for size in batches.index.image_size[0].tolist()]
    with times.part("ours", PARTS[0]):
        images = [read_image(path, scale_of(draw, size)) for path, draw, size in zip(paths, draws, sizes)]
    out = np.empty((len(paths), *SIZE, 3), np.uint8)
    with times.part("ours", PARTS[1]):
        for place, image, draw, size in zip(out, images, draws, sizes):
            apply_draw(image, draw, SIZE, size, place)
    with times.part("ours", PARTS[2]):
        points = batches.depth.read_cameras(0)
    with times.part("ours", PARTS[3]):
        for of, draw in zip(points, draws):
            depth_target(of, CONFIG.method.depth_sweeps, post_homography(draw, SIZE), SIZE, STRIDE)
    with times.part("ours", PARTS[4]):
        batches.bev.cells(0)


def print_parts(keyframe: Path, folder: Path, rounds: int) -> None:
    batches, times = batches_of(keyframe, folder), Times()
    paths = [keyframe / str(path) for path in batches.index.camera_path[0]]
    sample, whole = np.zeros(1, int), "whole sample"
    batches.training_at(positions_at(0, 1), sample)  # compiles, and fills the page cache
    for step in range(rounds):
        draws = draws_of(batches.index, 0, CONFIG.image, generator_at(step, 0))
        obvious(times, folder, paths, draws)
        ours(times, batches, paths, draws)
        with times.part("ours", whole):
            batches.training_at(positions_at(step, 1), sample)
    print("\n| ms of one core a sample | obvious way | here | times as fast |\n|---|---|---|---|")
    for name in PARTS:
        slow, fast = times.mean("obvious", name), times.mean("ours", name)
        print(f"| {name} | {slow:.1f} | {fast:.1f} | {slow / fast:.1f} |")
    total = times.mean("ours", whole)
    rest = total - sum(times.mean("ours", name) for name in PARTS)
    slow = rest + sum(times.mean("obvious", name) for name in PARTS)
    print(f"| cameras, masks, a batch of it | {rest:.1f} | {rest:.1f} | 1 |")
    print(f"| **whole sample** | {slow:.1f} | {total:.1f} | {slow / total:.1f} |")
    print(f"| samples a second and core | {1e3 / slow:.1f} | {1e3 / total:.1f} | |")
    cores = (f"{GPU * ms / 1e3:.1f}" for ms in (slow, total))
    print(f"| cores for a GPU of {GPU} samples a second | {' | '.join(cores)} | |", flush=True)


def _endless(keyframe: Path, folder: Path, queue: "multiprocessing.Queue[object]", first: int, step: int) -> None:
    """A process that loads: what DataLoader's workers do, tensors in shared memory."""
    torch.set_num_threads(1)
    batches = batches_of(keyframe, folder)
    for number in range(first, 1 << 30, step):
        batch = batches.training_at(positions_at(number, 1), np.zeros(1, int))
        queue.put((batch.images, batch.depth_map, batch.bev_index, batch.bev_values, *vars(batch.cameras).values()))


@contextmanager
def processes(keyframe: Path, folder: Path, count: int) -> Iterator[Callable[[], object]]:
    """`next` of what `count` processes load."""
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue(2 * count)
    workers = [context.Process(target=_endless, args=(keyframe, folder, queue, n, count)) for n in range(count)]
    for worker in workers:
        worker.start()
    try:
        yield partial(queue.get, timeout=120)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def per_second(make: Callable[[], object]) -> float:
    for _ in range(8):
        make()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        make()
        count += 1
    return count / (time.perf_counter() - start)


def print_workers(keyframe: Path, folder: Path) -> None:
    batches = batches_of(keyframe, folder)

    def load(step: int) -> object:
        return batches.training_at(positions_at(step, 1), np.zeros(1, int))

    print("\n| workers | samples a second by threads | by processes |\n|---|---|---|")
    for count in (1, 2):
        with Prefetcher(load, range(1 << 30), count, count + 1) as made:
            threads = per_second(partial(next, made))
        with processes(keyframe, folder, count) as make:
            print(f"| {count} | {threads:.1f} | {per_second(make):.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keyframe", type=Path, metavar="KEYFRAME")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--workers", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_world(options.keyframe, Path(folder))
        print_parts(options.keyframe, Path(folder), options.rounds)
        if options.workers:
            print_workers(options.keyframe, Path(folder))


if __name__ == "__main__":
    main()
