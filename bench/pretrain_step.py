"""One GeoMIM training step at full size: the fast path against the obvious one, in time and memory.

    python bench/pretrain_step.py [--model swin-b] [--size full|small] [--batch 1] [--views 6] [--threads 2]

On a CPU: forward, losses and backward (with --optimizer also AdamW's step) of the same weights on the same batch, in
fp32 by `tests/support/geomim_reference.py` and by `models/geomim`, and by the latter under bf16 autocast (and, with
--checkpointing, keeping only the blocks' inputs). One after another they have a process of their own, since two of full
size need not fit into memory. Times are medians of the steps after the first; memory is what the first added to the
process's peak. CPU time, over all threads, tells more than the clock where others use the machine too. Exit code 1
unless the losses agree and (at --size full) both marks are met.

On CUDA: samples per second, model FLOP utilisation and peak memory by batch size for Swin-B and Swin-L, eager fp32
against bf16 and bf16 compiled, and the share of the step that encoding the teacher's target online would have cost.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from sparse_encoder import GRID, synthetic_sweep, voxels  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import geomim_reference  # noqa: E402
from models.backbones.config import SwinConfig  # noqa: E402
from models.backbones.swin import Swin  # noqa: E402
from models.cameras import Cameras  # noqa: E402
from models.checkpointing import set_checkpointing  # noqa: E402
from models.depth_bins import DepthBins  # noqa: E402
from models.geomim.blocks import CrossViewBlock  # noqa: E402
from models.geomim.decoder import DecoderSpec  # noqa: E402
from models.geomim.model import GeoMIM, GeoMIMSpec, Reconstruction  # noqa: E402
from models.geomim.view_transform import ViewTransformSpec  # noqa: E402
from models.lidar.encoder import EncoderSpec, SparseEncoder  # noqa: E402
from models.lift_splat import BevGrid  # noqa: E402
from models.masking import draw_halves  # noqa: E402

TOLERANCE = {"fp32": 1e-5, "bf16": 1e-2}  # of the losses, relative
FASTER, MEMORY = 1.5, 0.6  # the marks: reference's time over ours, our memory over the reference's
CELL = 32  # pixels a side of what is masked as one
VARIANTS = ("reference", "fp32", "bf16", "fp32 checkpointing", "bf16 checkpointing")
# Dense peak of the tensor cores in bf16 (TFLOP/s); --peak-tflops for others.
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "4090": 165.0, "3090": 71.0}


@dataclass(frozen=True)
class Setup:
    """What is trained, on how much."""

    model: str
    size: str
    batch: int
    views: int
    optimizer: bool

    @property
    def image_size(self) -> tuple[int, int]:
        return (256, 704) if self.size == "full" else (128, 352)

    def build(self) -> GeoMIM:
        """The network of torch's seed 0: Swin-B or Swin-L as published, or a network of a tenth their width."""
        torch.manual_seed(0)
        full = self.size == "full"
        width, heads = {"swin-b": (128, (4, 8, 16, 32)), "swin-l": (192, (6, 12, 24, 48))}[self.model]
        width, heads = (width, heads) if full else (width // 4, tuple(h // 2 for h in heads))
        backbone = Swin(SwinConfig(embed_dim=width, depths=(2, 2, 18, 2) if full else (2, 2, 2, 2), num_heads=heads))
        dim = 512 if full else 128
        grid = BevGrid((-54.0, 54.0), (-54.0, 54.0), (-10.0, 10.0), 0.3 if full else 0.6)
        view = ViewTransformSpec(DepthBins(1.0, 60.0, 0.5), grid)
        spec = GeoMIMSpec(DecoderSpec(dim, 16 if full else 4), view, heads[2], target_channels=256)
        model = GeoMIM(backbone, spec)
        for block in model.modules():
            if isinstance(block, CrossViewBlock):  # starts as the identity, which would hide a difference
                nn.init.normal_(block.attn.proj.weight, std=0.02)
                nn.init.normal_(block.mlp.fc2.weight, std=0.02)
        return model


@dataclass
class Batch:
    images: Tensor  # (B, N, 3, H, W)
    cameras: Cameras
    groups: Tensor  # (1, H/32, W/32)
    lidar_bev: Tensor  # (B, 256, X, Y)
    depth_map: Tensor  # (B, N, H/16, W/16)

    @classmethod
    def random(cls, setup: Setup, bev_cells: tuple[int, int]) -> "Batch":
        """Noise, seen by a ring of level cameras at the origin with 70 degrees of view; two thirds of it have depth."""
        generator = torch.Generator().manual_seed(1)
        (height, width), batch, views = setup.image_size, setup.batch, setup.views
        focal = width / 1.4
        intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        pose = torch.zeros(views, 4, 4)
        angle = torch.arange(views) * (2 * torch.pi / views)
        pose[:, 0, 0], pose[:, 1, 0] = angle.cos(), -angle.sin()  # a camera's x: to its right
        pose[:, 2, 1] = -1  # its y: down
        pose[:, 0, 2], pose[:, 1, 2] = angle.sin(), angle.cos()  # its z: ahead
        pose[:, 3, 3] = 1
        pose = pose.expand(batch, views, 4, 4)
        cameras = Cameras(
            intrinsics.expand(batch, 1, views, 3, 3),
            torch.eye(4).expand(batch, 1, views, 4, 4),
            pose[:, None],
            pose + 0.01,
            torch.eye(4).expand(batch, 4, 4),
        )
        depth = 60 * torch.rand(batch, views, 2 * height // CELL, 2 * width // CELL, generator=generator)
        return cls(
            torch.randn(batch, views, 3, height, width, generator=generator),
            cameras,
            draw_halves(1, (height // CELL, width // CELL), generator),
            torch.randn(batch, 256, *bev_cells, generator=generator).relu(),
            torch.where(torch.rand(depth.shape, generator=generator) < 0.67, depth, 0),
        )

    def to(self, device: str) -> "Batch":
        rest = (t.to(device) for t in (self.groups, self.lidar_bev, self.depth_map))
        return Batch(self.images.to(device), self.cameras.each(lambda matrix: matrix.to(device)), *rest)


def bev_cells(model: GeoMIM) -> tuple[int, int]:
    """Cells of the predicted BEV: the splatted grid's, halved."""
    nx, ny = model.view_transform.grid.shape
    return nx // 2, ny // 2


def step_of(model: GeoMIM, forward: Callable, batch: Batch, bf16: bool, optimizer: bool) -> Callable[[], list[float]]:
    """A function that does a training step and returns the losses: total, reconstruction, depth."""
    adamw = torch.optim.AdamW(model.parameters(), 0.0, fused=True) if optimizer else None  # rate 0: rounds alike

    def step() -> list[float]:
        model.zero_grad()
        cameras = model.geometry(batch.cameras, tuple(batch.images.shape[-2:]))
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=bf16):
            made = forward(batch.images, cameras, batch.groups)
        losses = model.losses(made, batch.lidar_bev, batch.depth_map)
        losses.total.backward()
        if adamw is not None:
            adamw.step()
        return [loss.item() for loss in losses]

    return step


# On a CPU: a process a variant


def work(variant: str, setup: Setup, rounds: int) -> None:
    """Print, for each of 1 + rounds steps, a line of JSON: losses, seconds, CPU seconds, MiB added to the peak."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = setup.build()
    batch = Batch.random(setup, bev_cells(model))
    set_checkpointing(model, "block" if "checkpointing" in variant else "mlp")

    def reference(images: Tensor, _, groups: Tensor) -> Reconstruction:
        return geomim_reference.forward(model, images, batch.cameras, groups)

    step = step_of(model, reference if variant == "reference" else model, batch, "bf16" in variant, setup.optimizer)
    before = memory("VmRSS")
    for _ in range(1 + rounds):
        begin, cpu = time.perf_counter(), time.process_time()
        losses = step()
        seconds = time.perf_counter() - begin, time.process_time() - cpu
        print(json.dumps([losses, *seconds, memory("VmHWM") - before]), flush=True)


def memory(field: str) -> float:
    """A figure of this process in MiB: VmRSS, resident now, or VmHWM, its peak (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measured(variant: str, setup: Setup, threads: int, rounds: int) -> list[list]:
    """What `work` printed, in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, "--worker", variant, "--setup", json.dumps(asdict(setup))]
    command += ["--rounds", str(rounds)]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{variant}: its process ended with code {done.returncode}; is there memory enough?")
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(setup: Setup, variants: list[str], threads: int, rounds: int) -> bool:
    """Print a line per variant; whether the losses agree and, at full size, the marks are met."""
    last = "AdamW's step" if setup.optimizer else "no optimizer step"
    size = "x".join(map(str, setup.image_size))
    print(f"{setup.model} ({setup.size}), {setup.batch} x {setup.views} x {size}, {threads} thread(s), {last}")
    titles = "step", "faster", "CPU time", "less", "added memory", "share", "loss", "difference"
    print(" " * 18, *(f"{title:>12}" for title in titles), sep="")
    rows, good = {}, True
    for variant in variants:
        answers = measured(variant, setup, threads, rounds)
        losses, memory_added = answers[0][0], answers[0][3]
        seconds, cpu = (statistics.median(a[i] for a in answers[1:]) for i in (1, 2))
        rows[variant] = losses, seconds, cpu, memory_added
        wanted, *reference = rows["reference"]
        error = max(abs(a - b) / abs(b) for a, b in zip(losses, wanted))
        faster, cheaper, share = reference[0] / seconds, reference[1] / cpu, memory_added / reference[2]
        agrees = error <= TOLERANCE["bf16" if "bf16" in variant else "fp32"]
        good &= agrees and (variant != "fp32" or setup.size != "full" or (faster >= FASTER and share <= MEMORY))
        print(
            f"{variant:18}{seconds:10.1f} s{faster:11.2f}x{cpu:10.1f} s{cheaper:11.2f}x{memory_added:8.0f} MiB"
            f"{share:12.2f}{losses[0]:12.6f}{error:12.0e} {'OK' if agrees else 'FAIL'}",
            flush=True,
        )
    if setup.size == "full":
        print(f"marks: fp32 at least {FASTER}x faster with at most {MEMORY} of the memory: {'OK' if good else 'FAIL'}")
    return good


# On CUDA: a line per batch size


def on_gpu(model_name: str, views: int, batches: list[int], peak_tflops: float, checkpointing: bool) -> None:
    print(
        f"{torch.cuda.get_device_name()}, peak {peak_tflops:.0f} TFLOP/s in bf16; steps with AdamW, {views} x 256x704"
    )
    print(f"{'':27}{'batch':>6}{'samples/s':>11}{'MFU':>7}{'peak memory':>14}{'teacher online':>16}")
    setup = Setup(model_name, "full", 1, views, True)
    flops, teacher = flops_per_sample(setup), teacher_seconds()
    for bf16, compiled in ((False, False), (True, False), (True, True)):
        for batch in batches:
            name = f"{model_name} {'bf16' if bf16 else 'fp32'}{' compiled' if compiled else ' eager'}"
            try:
                seconds, gib = measure(Setup(model_name, "full", batch, views, True), bf16, compiled, checkpointing)
            except torch.cuda.OutOfMemoryError:
                print(f"{name:27}{batch:6}  out of memory")
                break
            used = flops * batch / seconds / (peak_tflops * 1e12)
            share = teacher * batch / (teacher * batch + seconds)
            print(f"{name:27}{batch:6}{batch / seconds:11.2f}{used:7.1%}{gib:10.1f} GiB{share:16.1%}", flush=True)


def measure(setup: Setup, bf16: bool, compiled: bool, checkpointing: bool) -> tuple[float, float]:
    """Seconds of a step (median of ten after three) and the peak of allocated memory (GiB)."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = setup.build().cuda()
    set_checkpointing(model, "block" if checkpointing else "mlp")
    batch = Batch.random(setup, bev_cells(model)).to("cuda")
    step = step_of(model, torch.compile(model) if compiled else model, batch, bf16, setup.optimizer)
    return statistics.median(list(timed(step, 13))[3:]), torch.cuda.max_memory_allocated() / 2**30


def timed(function: Callable, times: int) -> Iterator[float]:
    for _ in range(times):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        function()
        torch.cuda.synchronize()
        yield time.perf_counter() - begin


def flops_per_sample(setup: Setup) -> float:
    """Of one step's products (matrix, convolution, attention), forward and backward, nothing recomputed."""
    model = setup.build().cuda()
    batch = Batch.random(setup, bev_cells(model)).to("cuda")
    with FlopCounterMode(display=False) as counter:
        step_of(model, model, batch, bf16=True, optimizer=False)()
    return counter.get_total_flops() / setup.batch


def teacher_seconds() -> float:
    """Of the frozen LiDAR encoder on one synthetic cloud of ten sweeps, fp32, voxels at hand."""
    means, coords = (t.cuda() for t in voxels(synthetic_sweep(np.random.default_rng(0)), 10))
    encoder = SparseEncoder(GRID.sparse_shape, EncoderSpec()).eval().cuda()
    with torch.inference_mode():
        return statistics.median(list(timed(lambda: encoder(means, coords, 1), 8))[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("swin-b", "swin-l"), help="default: swin-b on a CPU, both on CUDA")
    parser.add_argument("--size", choices=("full", "small"), default="full", help="small: a quick run, no marks")
    parser.add_argument("--batch", type=int, nargs="+", help="samples; on CUDA several (default 1 2 4 8 16)")
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2, help="timed steps, after one that warms up")
    parser.add_argument("--optimizer", action="store_true", help="on a CPU too, end a step with AdamW's")
    parser.add_argument("--checkpointing", action="store_true", help="also measure with activation checkpointing")
    parser.add_argument("--peak-tflops", type=float, help="of the GPU in bf16, dense, where its name does not tell")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--setup", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, Setup(**arguments.setup), arguments.rounds)
    if arguments.device == "cuda":
        name = torch.cuda.get_device_name()
        peak = arguments.peak_tflops or next((p for part, p in PEAK_TFLOPS.items() if part in name), None)
        if peak is None:
            sys.exit(f"{name}: its peak is not known here; give --peak-tflops")
        for model in [arguments.model] if arguments.model else ["swin-b", "swin-l"]:
            on_gpu(model, arguments.views, arguments.batch or [1, 2, 4, 8, 16], peak, arguments.checkpointing)
        return None
    variants = [v for v in VARIANTS if arguments.checkpointing or "checkpointing" not in v]
    batch = arguments.batch[0] if arguments.batch else 1
    setup = Setup(arguments.model or "swin-b", arguments.size, batch, arguments.views, arguments.optimizer)
    sys.exit(0 if compare(setup, variants, arguments.threads, arguments.rounds) else 1)


if __name__ == "__main__":
    main()
