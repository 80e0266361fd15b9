"""The sparse encoder at full size, on a CPU, side by side with spconv and with a naive gather-GEMM-scatter.

    python bench/sparse_encoder.py [DATAROOT | SWEEP.bin] [--spconv SITE] [--sweeps 1 10] [--rounds 7] [--threads 1]

Every method runs in a process of its own, with the same weights on the same voxels, and the processes take turns round
by round, so that a busy machine slows all of them alike. Times are medians, memory is what the first forward added to
the process's peak, the difference is the largest one from our map over its largest value (exit code 1 if it is more
than rounding). Without a dataroot the cloud is synthetic: the rings of a spinning LiDAR on ground and walls.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from dataroot.points import read_cloud  # noqa: E402
from models.lidar.encoder import BasicBlock, EncoderSpec, SparseEncoder  # noqa: E402
from models.lidar.grid import VoxelGrid  # noqa: E402
from models.lidar.sparse_conv import Sites, SparseConv3d, SparseTensor, SubmanifoldConv3d  # noqa: E402
from models.lidar.voxelize import voxelize  # noqa: E402
from models.norm import Norm  # noqa: E402

GRID = VoxelGrid((-54.0, -54.0, -5.0, 54.0, 54.0, 3.0), (0.075, 0.075, 0.2))
JITTER = 0.06  # m, of every point of a further sweep: ten sweeps then open about six times one sweep's voxels
TOLERANCE = 1e-5  # of the largest value
SPCONV = "spconv==2.3.8 cumm pccm ccimport fire lark portalocker ninja pybind11 termcolor"

Forward = Callable[[], Tensor]


# The clouds


def sweep_points(source: Path | None) -> np.ndarray:
    """(N, 5) float32 points of one sweep: of a nuScenes .bin, of the first in a dataroot, or synthetic."""
    if source is None:
        return synthetic_sweep(np.random.default_rng(0))
    files = sorted((source / "samples" / "LIDAR_TOP").glob("*.bin")) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        sys.exit(f"{source}: no .bin file, nor a folder with samples/LIDAR_TOP/*.bin; give a sweep or a dataroot")
    return np.pad(read_cloud(files[0], 5), ((0, 0), (0, 1)))


def synthetic_sweep(rng: np.random.Generator) -> np.ndarray:
    """32 rings of 1,080 rays from 1.84 m above the ground: each ray ends on the ground or on one of 40 walls."""
    elevation = np.deg2rad(np.linspace(-30.7, 10.7, 32))[:, None]
    azimuth = np.linspace(-np.pi, np.pi, 1080, endpoint=False)[None]
    ground = np.where(elevation < 0, 1.84 / np.maximum(np.tan(-elevation), 1e-6), np.inf)  # along the ground, m
    centre, width, distance = rng.uniform(-np.pi, np.pi, 40), rng.uniform(0.05, 0.5, 40), rng.uniform(4, 60, 40)
    away = np.abs((azimuth[0] - centre[:, None] + np.pi) % (2 * np.pi) - np.pi)
    bounded = np.where(away < width[:, None], distance[:, None] / np.cos(away), np.inf).min(0)
    reach = np.minimum(ground, bounded)
    hit = np.isfinite(reach)
    reach, elevation, azimuth = (np.broadcast_to(a, hit.shape)[hit] for a in (reach, elevation, azimuth))
    xyz = np.stack([reach * np.cos(azimuth), reach * np.sin(azimuth), reach * np.tan(elevation)], 1)
    xyz += rng.normal(0, 0.02, xyz.shape)
    return np.pad(np.concatenate([xyz, rng.uniform(0, 255, (len(xyz), 1))], 1), ((0, 0), (0, 1))).astype(np.float32)


def voxels(sweep: np.ndarray, sweeps: int) -> tuple[Tensor, Tensor]:
    """Means (V, 5) and coordinates (V, 4) of a sweep and `sweeps` - 1 jittered copies."""
    rng = np.random.default_rng(1)
    clouds = [sweep]
    for age in range(1, sweeps):
        copy = sweep.copy()
        copy[:, :3] += rng.normal(0, JITTER, copy[:, :3].shape)
        copy[:, 4] = 0.05 * age
        clouds.append(copy)
    cloud = voxelize(torch.from_numpy(np.concatenate(clouds)), GRID)
    return cloud.means, nn.functional.pad(cloud.coords, (1, 0))


# The methods


def ours(encoder: SparseEncoder, means: Tensor, coords: Tensor) -> Forward:
    return lambda: encoder(means, coords, 1)


class Naive(nn.Module):
    """A convolution of ours by our rulebook; per offset a gather, a product and `index_add_`."""

    def __init__(self, conv: SparseConv3d | SubmanifoldConv3d):
        super().__init__()
        self.conv = conv

    def forward(self, x: SparseTensor) -> SparseTensor:
        conv, sites = self.conv, x.sites
        if isinstance(conv, SubmanifoldConv3d):
            book = sites.submanifold3
        else:
            sites, book = sites.strided(conv.kernel, conv.stride, conv.padding)
        out = x.features.new_zeros(book.num_target, conv.weight.shape[-1])
        pairs = zip(conv.weight.flatten(0, 2), book.source.split(book.lengths), book.target.split(book.lengths))
        for w, source, target in pairs:
            out.index_add_(0, target, x.features[source] @ w)
        return SparseTensor(out, sites)


def naive(encoder: SparseEncoder, means: Tensor, coords: Tensor) -> Forward:
    """The same network out of naive convolutions."""
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, SparseConv3d | SubmanifoldConv3d):
                setattr(module, name, Naive(child))
    return ours(encoder, means, coords)


def spconv(encoder: SparseEncoder, means: Tensor, coords: Tensor) -> Forward:
    """The same network out of spconv's layers, with our weights in its layout (out, kx, ky, kz, in)."""
    import spconv.pytorch as sp

    def of(conv: nn.Module, key: str) -> nn.Module:
        kernel, (channels, out) = conv.weight.shape[:3], conv.weight.shape[3:]
        if isinstance(conv, SubmanifoldConv3d):
            twin = sp.SubMConv3d(channels, out, tuple(kernel), bias=False, indice_key=f"sub{key}")
        else:
            twin = sp.SparseConv3d(channels, out, conv.kernel, conv.stride, conv.padding, bias=False, indice_key=key)
        twin.weight.data = conv.weight.data.permute(4, 0, 1, 2, 3).contiguous()
        return twin

    class Block(sp.SparseModule):
        def __init__(self, block: BasicBlock, key: str):
            super().__init__()
            self.first = sp.SparseSequential(of(block.conv1, key), block.bn1, nn.ReLU(inplace=True))
            self.second = sp.SparseSequential(of(block.conv2, key), block.bn2)

        def forward(self, x):
            y = self.second(self.first(x))
            return y.replace_feature(torch.relu_(y.features + x.features))

    layers: list[nn.Module] = [*of_unit(encoder.conv_input, of, "1")]
    for number, level in enumerate(encoder.encoder_layers, 1):
        for part in level:
            is_block = isinstance(part, BasicBlock)
            layers += [Block(part, str(number))] if is_block else of_unit(part, of, f"down{number}")
    layers += of_unit(encoder.conv_out, of, "out")
    net = sp.SparseSequential(*layers).eval()
    indices = coords.int()

    def forward() -> Tensor:
        out = net(sp.SparseConvTensor(means, indices, list(encoder.shape), 1)).dense()  # (B, C, X, Y, Z)
        return out.permute(0, 1, 4, 2, 3).flatten(1, 2).contiguous()

    return forward


def of_unit(unit: nn.Sequential, of: Callable, key: str) -> list[nn.Module]:
    conv, norm = unit
    return [of(conv, key), norm, nn.ReLU(inplace=True)]


METHODS = {"ours": ours, "naive": naive, "spconv": spconv}


# One process a method


def work(method: str, folder: Path) -> None:
    """Run once, save the map, print the added peak (MiB); then time whatever stdin asks for, a word a line."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    data = np.load(folder / "voxels.npz")
    means, coords = torch.from_numpy(data["means"]), torch.from_numpy(data["coords"])
    encoder = SparseEncoder(GRID.sparse_shape, EncoderSpec()).eval()
    encoder.load_state_dict(torch.load(folder / "weights.pt"))
    forward = METHODS[method](encoder, means, coords)

    def rulebook() -> None:
        """All the encoder's rulebooks and nothing else; modules come in the order in which they run."""
        sites, _ = Sites.sorted(coords, encoder.shape, 1)
        for module in encoder.modules():
            if isinstance(module, SubmanifoldConv3d):
                _ = sites.submanifold3.chunks
            elif isinstance(module, SparseConv3d):
                sites, book = sites.strided(module.kernel, module.stride, module.padding)
                _ = book.chunks

    def backward() -> None:
        with torch.inference_mode(False), torch.enable_grad():
            encoder(means.clone(), coords.clone(), 1).square().mean().backward()

    before = resident()
    with torch.inference_mode():
        first = forward()
        np.save(folder / f"{method}.npy", first.numpy())
        del first
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        print(json.dumps(peak), flush=True)
        for command in sys.stdin:
            begin = time.perf_counter()
            {"run": forward, "rulebook": rulebook, "backward": backward}[command.strip()]()
            print(json.dumps(time.perf_counter() - begin), flush=True)


def resident() -> float:
    """This process's resident memory (MiB)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class Worker:
    def __init__(self, method: str, folder: Path, threads: int, site: Path | None):
        paths = [str(p) for p in (ROOT, site) if p]
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONWARNINGS": "ignore",  # spconv's, of a newer torch
        }
        command = [sys.executable, __file__, "--worker", method, "--folder", str(folder)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)
        self.peak = self.answer()

    def answer(self) -> float:
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"a worker ended with code {self.process.wait()}; its message stands above")
        return json.loads(line)

    def ask(self, command: str) -> float:
        print(command, file=self.process.stdin, flush=True)
        return self.answer()

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


# The comparison


def compare(sweep: np.ndarray, sweeps: int, methods: list[str], rounds: int, threads: int, site: Path | None) -> bool:
    """Print the table of one cloud; whether all methods agree."""
    means, coords = voxels(sweep, sweeps)
    torch.manual_seed(0)
    encoder = SparseEncoder(GRID.sparse_shape, EncoderSpec(norm=Norm(1e-3, 1.0)))
    with torch.no_grad():
        encoder(means, coords, 1)  # batch-norm statistics of this cloud, so that values keep their size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "voxels.npz", means=means.numpy(), coords=coords.numpy())
        torch.save(encoder.state_dict(), folder / "weights.pt")
        workers = {method: Worker(method, folder, threads, site) for method in methods}
        seconds = {method: [] for method in methods} | {"rulebook": [], "backward": []}
        for _ in range(rounds):
            for method, worker in workers.items():
                seconds[method].append(worker.ask("run"))
            seconds["rulebook"].append(workers["ours"].ask("rulebook"))
        for _ in range(max(2, rounds // 3)):
            seconds["backward"].append(workers["ours"].ask("backward"))
        for worker in workers.values():
            worker.end()
        maps = {method: np.load(folder / f"{method}.npy") for method in methods}

    median = {what: statistics.median(values) for what, values in seconds.items()}
    print(f"\n{sweeps} sweep(s), {len(means)} voxels, {'x'.join(map(str, GRID.sparse_shape))}, {threads} thread(s)")
    print(f"{'':10}{'forward':>10}{'added':>12}{'ours is':>16}{'difference':>14}")
    largest = np.abs(maps["ours"]).max()
    errors = {method: np.abs(bev - maps["ours"]).max() / largest for method, bev in maps.items()}
    for method, error in errors.items():
        ratio = f"{median[method] / median['ours']:.2f}x as fast" if method != "ours" else ""
        verdict = f"{error:.0e} {'OK' if error <= TOLERANCE else 'FAIL'}" if method != "ours" else ""
        print(f"{method:10}{median[method]:8.3f} s{workers[method].peak:8.0f} MiB{ratio:>16}{verdict:>14}")
    share = median["rulebook"] / median["ours"]
    print(
        f"ours: rulebooks {median['rulebook']:.3f} s ({share:.0%}), arithmetic and the rest {1 - share:.0%};", end=" "
    )
    print(f"forward + backward {median['backward']:.3f} s", flush=True)
    return all(error <= TOLERANCE for error in errors.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, help="a nuScenes dataroot or one sweep's .bin")
    parser.add_argument("--spconv", type=Path, help="the folder that spconv was installed to with pip's --target")
    parser.add_argument("--sweeps", type=int, nargs="+", default=[1, 10], help="clouds: one sweep and jittered copies")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, arguments.folder)
    site = arguments.spconv.resolve() if arguments.spconv else None
    environment = os.environ | ({"PYTHONPATH": str(site)} if site else {})
    found = subprocess.run([sys.executable, "-c", "import spconv.pytorch"], env=environment, capture_output=True)
    methods = ["ours", "naive"]
    if found.returncode == 0:
        methods.append("spconv")
    else:
        print("spconv is not there, so ours stands beside the naive way alone. To compare:")
        print(f"  pip install --no-deps --target SITE {SPCONV}")
        print("  python bench/sparse_encoder.py --spconv SITE")
    sweep = sweep_points(arguments.source)
    agree = [compare(sweep, s, methods, arguments.rounds, arguments.threads, site) for s in arguments.sweeps]
    sys.exit(0 if all(agree) else 1)


if __name__ == "__main__":
    main()
