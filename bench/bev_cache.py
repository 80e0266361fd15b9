"""What to store of a teacher's BEV map: bytes, time on one core, and the error in what pretraining is measured by.

    python bench/bev_cache.py --scene NAME INDEX.zarr DATAROOT SAMPLE [--scene ...] [--weights FILE] [--rounds 21]

Prints a Markdown table for the 256-channel map (sparse encoder) and the 512-channel one (SECONDFPN) of each scene, with
random weights if none are given. Every row is written to files of its own; then all rows are read in turn, round by
round, from the page cache, so that a busy machine slows all alike. Times are medians. "Dense" is an array that reads as
[C, X, Y]; out of cells it lies channels-last in memory. The error in the target is the rms of the difference between
the patch-normalised maps, over the standard deviation of the right one (models/geomim/target.py).
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import zarr  # noqa: E402
from numcodecs import Blosc, Zstd  # noqa: E402
from numcodecs.abc import Codec  # noqa: E402
from zarr.codecs import BloscCodec, ZstdCodec  # noqa: E402

from dataroot.points import load_points  # noqa: E402
from models.geomim.target import normalise_patches  # noqa: E402
from storage.bev import BevAttributes, BevReader, BevWriter, Cells, to_half  # noqa: E402
from storage.index import Index  # noqa: E402
from tasks.teacher.config import TeacherConfig  # noqa: E402
from tasks.teacher.network import build_teacher  # noqa: E402

PATCH = 18  # of pretraining's target
BASELINE = "dense zarr, zstd-1"


class Method(NamedTuple):
    name: str
    write: Callable[[Path, np.ndarray], None]  # to a folder, a map (C, X, Y) float16
    dense: Callable[[Path], np.ndarray]  # (C, X, Y)
    cells: Callable[[Path], Cells] | None = None


def dense_zarr(name: str, codec: object) -> Method:
    def write(folder: Path, bev: np.ndarray) -> None:
        array = zarr.create_array(
            folder / "bev", shape=bev.shape, chunks=bev.shape, dtype="float16", compressors=codec, overwrite=True
        )
        array[:] = bev

    return Method(f"dense zarr, {name}", write, lambda folder: zarr.open_array(folder / "bev", mode="r")[:])


def scattered(cells: Cells, shape: tuple[int, int, int]) -> np.ndarray:
    channels, x, y = shape
    bev = np.zeros((x * y, channels), np.float16)
    bev[cells.index] = cells.values
    return bev.reshape(x, y, channels).transpose(2, 0, 1)


def cells_of(bev: np.ndarray) -> Cells:
    active = bev.any(0)
    return Cells(np.flatnonzero(active).astype(np.int32), np.ascontiguousarray(bev.transpose(1, 2, 0)[active]))


class Number(NamedTuple):
    """How a float16 is put into fewer bits; scale is (C,)."""

    store: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # float16 (n, C) -> (numbers, scale)
    load: Callable[[np.ndarray, np.ndarray], np.ndarray]


def scale_to(values: np.ndarray, largest: float) -> np.ndarray:
    scale = np.abs(values.astype(np.float32)).max(0, initial=0) / largest
    return np.where(scale > 0, scale, 1).astype(np.float32)


def float8(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = scale_to(values, 448)
    return torch.from_numpy(values / scale).to(torch.float8_e4m3fn).view(torch.uint8).numpy(), scale


def from_table(numbers: np.ndarray, decoded: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The 256 numbers times every channel's scale, looked up: quicker than numpy's way to float16."""
    channels = len(scale)
    table = (decoded[:, None] * scale).astype(np.float16)
    return table.ravel().take(numbers.view(np.uint8).astype(np.intp) * channels + np.arange(channels))


FLOAT8 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
INT8 = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)
HALF = Number(lambda v: (v, np.ones(v.shape[1], np.float32)), lambda v, scale: v)
NUMBERS = {
    "int8 and scale": Number(
        lambda v: (np.rint(v / (scale := scale_to(v, 127))).astype(np.int8), scale),
        lambda v, scale: from_table(v, INT8, scale),
    ),
    "fp8 (e4m3) and scale": Number(float8, lambda v, scale: from_table(v, FLOAT8, scale)),
}
for bits in (2, 3, 4, 5):
    NUMBERS[f"{bits} bits of mantissa"] = Number(
        lambda v, bits=bits: (to_half(v, bits), np.ones(v.shape[1], np.float32)), HALF.load
    )


def cells_files(name: str, codec: Codec | None, shape: tuple[int, int, int], number: Number = HALF) -> Method:
    """Active cells in plain files: what a codec alone takes, without Zarr and without checksums."""

    def write(folder: Path, bev: np.ndarray) -> None:
        index, values = cells_of(bev)
        numbers, scale = number.store(values)
        (folder / "value").write_bytes(codec.encode(numbers) if codec else numbers.tobytes())
        np.save(folder / "index.npy", index)
        np.save(folder / "scale.npy", scale)
        np.save(folder / "type.npy", numbers[:0])

    def cells(folder: Path) -> Cells:
        index = np.load(folder / "index.npy")
        data = (folder / "value").read_bytes()
        numbers = np.frombuffer(codec.decode(data) if codec else data, np.load(folder / "type.npy").dtype)
        return Cells(index, number.load(numbers.reshape(len(index), -1), np.load(folder / "scale.npy")))

    return Method(f"cells, {name}", write, lambda folder: scattered(cells(folder), shape), cells)


def ours(encoding: str) -> Method:
    def write(folder: Path, bev: np.ndarray) -> None:
        shutil.rmtree(folder / "bev.zarr", ignore_errors=True)
        attributes = BevAttributes((0.0,) * 6, (1.0, 1.0), part_size=1, encoding=encoding)
        BevWriter(folder / "bev.zarr", np.array(["sample"]), bev.shape, attributes).write(0, [bev])

    readers: dict[Path, BevReader] = {}

    def reader(folder: Path) -> BevReader:
        if folder not in readers:
            readers[folder] = BevReader(folder / "bev.zarr")
        return readers[folder]

    return Method(f"**bev.zarr, {encoding}**", write, lambda f: reader(f)[0], lambda f: reader(f).cells(0))


def recipe(encoding: str) -> Method:
    """The same file by zarr-python: the recipe of docs/bev-cache.md."""

    def dense(folder: Path) -> np.ndarray:
        group = zarr.open_group(folder / "bev.zarr", mode="r")
        active = group["active"][0, 0]
        bev = np.zeros((*active.shape, group["value"].shape[3]), np.float16)
        bev[active] = group["value"][0, 0, : active.sum()]
        return bev.transpose(2, 0, 1)

    return Method(f"bev.zarr, {encoding}, by zarr-python", ours(encoding).write, dense)


def methods(shape: tuple[int, int, int]) -> Iterator[Method]:
    yield Method("dense .npy", lambda f, bev: np.save(f / "bev.npy", bev), lambda f: np.load(f / "bev.npy"))
    yield dense_zarr("no codec", None)
    yield dense_zarr("zstd-1", ZstdCodec(level=1))
    yield dense_zarr("zstd-3", ZstdCodec(level=3))
    for inner in ("lz4", "zstd"):
        for shuffle in ("shuffle", "bitshuffle"):
            codec = BloscCodec(typesize=2, cname=inner, clevel=1, shuffle=shuffle)
            yield dense_zarr(f"blosc {inner}-1 {shuffle}", codec)
    yield cells_files("raw", None, shape)
    for inner, level in (("lz4", 5), ("lz4hc", 5), ("zstd", 1)):
        for shuffle, name in enumerate(("no shuffle", "shuffle", "bitshuffle")):
            yield cells_files(f"blosc {inner}-{level} {name}", Blosc(inner, level, shuffle), shape)
    yield cells_files("zstd-1", Zstd(1), shape)
    yield cells_files("zstd-3", Zstd(3), shape)
    for name, number in NUMBERS.items():
        yield cells_files(f"{name}, zstd-1", Zstd(1), shape, number)
    yield from (ours("cells"), recipe("cells"), ours("compact"), ours("dense"))


def size(folder: Path) -> int:
    """Bytes of the data; a store's metadata is shared by all its samples."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.name != "zarr.json")


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    kept = call()  # freed after the clock
    elapsed = 1e3 * (time.perf_counter() - start)
    del kept
    return elapsed


def table(bev: np.ndarray, rounds: int) -> list[str]:
    target = normalise_patches(torch.from_numpy(bev)[None].float(), PATCH)
    found = list(methods(bev.shape))
    encode, dense, cells = ({m.name: [] for m in found} for _ in range(3))
    with tempfile.TemporaryDirectory() as root:
        folders = {m.name: Path(root, str(i)) for i, m in enumerate(found)}
        for m in found:
            folders[m.name].mkdir()
            encode[m.name] = [timed(lambda m=m: m.write(folders[m.name], bev)) for _ in range(2)]
        for i in range(rounds + 1):
            for m in found:
                taken = timed(lambda m=m: m.dense(folders[m.name]))
                taken_cells = timed(lambda m=m: m.cells(folders[m.name])) if m.cells else 0.0
                if i > 0:  # the first fills the page cache
                    dense[m.name].append(taken)
                    cells[m.name].append(taken_cells)
        lines = [
            "| stored | MB | of fp16 | encode ms | to dense ms | against zstd-1 | to cells ms | largest error "
            "| error of the target |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        baseline = statistics.median(dense[BASELINE])
        for m in found:
            made = np.ascontiguousarray(m.dense(folders[m.name]))
            mb, to_dense = size(folders[m.name]) / 1e6, statistics.median(dense[m.name])
            error = normalise_patches(torch.from_numpy(made)[None].float(), PATCH) - target
            exact = np.array_equal(made, bev)
            columns = (
                m.name,
                f"{mb:.2f}",
                f"1/{bev.nbytes / 1e6 / mb:.1f}",
                f"{statistics.median(encode[m.name]):.0f}",
                f"{to_dense:.2f}",
                f"{baseline / to_dense:.1f}x",
                f"{statistics.median(cells[m.name]):.2f}" if m.cells else "",
                "0" if exact else f"{np.abs(made.astype(np.float32) - bev.astype(np.float32)).max():.3f}",
                "0" if exact else f"{float(error.square().mean().sqrt() / target.std()):.2%}",
            )
            lines.append(f"| {' | '.join(columns)} |")
    return lines


def make_map(index_path: Path, dataroot: Path, sample: int, weights: str, output: str) -> np.ndarray:
    """(C, X, Y) float16."""
    index = Index.open(index_path)
    config = TeacherConfig(weights=weights, output=output)
    teacher = build_teacher(config, index, dataroot, None)
    with torch.inference_mode():
        points = torch.from_numpy(load_points(index, dataroot, sample, config.lidar.sweeps))
        return teacher.run(teacher.prepare(points), torch.device("cpu"), False)[0].numpy().astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", nargs=4, action="append", required=True)
    parser.add_argument("--weights", default="random")
    parser.add_argument("--rounds", type=int, default=21)
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    for name, index, dataroot, sample in args.scene:
        for output in ("encoder", "neck"):
            bev = make_map(Path(index), Path(dataroot), int(sample), args.weights, output)
            active, filled = bev.any(0).mean(), (bev != 0).mean()
            print(f"\n### {name}, {len(bev)} channels: {active:.1%} of the cells active, {filled:.1%} non-zero\n")
            print("\n".join(table(bev, args.rounds)), flush=True)


if __name__ == "__main__":
    main()
