"""One GeoMIM training step at full size on a CPU: the fast path against the obvious one, in time and memory.

    python bench/pretrain_step.py [--model swin-b] [--size full|small] [--batch 1] [--views 6] [--threads 2]

Forward, losses and backward (with --optimizer also AdamW's step) of the same weights on the same batch, in fp32 by
`tests/support/geomim_reference.py` and by `models/geomim`, and by the latter under bf16 autocast (and, with
--checkpointing, keeping only the blocks' inputs). One after another they have a process of their own, since two of full
size need not fit into memory. Times are medians of the steps after the first; memory is what the first added to the
process's peak. CPU time, over all threads, tells more than the clock where others use the machine too. Exit code 1
unless the losses agree and (at --size full) the marks are met: in fp32, and in bf16 where the CPU has products of it.

`bench/gpu.py` does the same, and more, on a GPU.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
from device_clock import resident_mib
from noise import ROOT, NoiseForGeoMIM, preset  # also makes the repository's modules importable
from torch import Tensor

import geomim_reference
from batches.geomim import GeoMIMBatch
from models.checkpointing import set_checkpointing
from models.geomim.model import GeoMIM, Reconstruction
from tasks.pretrain.config import PretrainConfig

TOLERANCE = {"fp32": 1e-5, "bf16": 1e-2}  # of the losses, relative
# The marks: the obvious path's time over ours, and our memory over its.
FASTER, MEMORY = {"fp32": 1.5, "bf16": 2.0}, {"fp32": 0.6}
BF16_PRODUCTS = "amx_bf16", "avx512_bf16"  # in /proc/cpuinfo, one of them
VARIANTS = ("reference", "fp32", "bf16", "fp32 checkpointing", "bf16 checkpointing")


@dataclass(frozen=True)
class Setup:
    """What is trained, on how much."""

    model: str
    size: str
    batch: int
    views: int
    optimizer: bool

    @property
    def config(self) -> PretrainConfig:
        return preset(f"geomim-{self.model}", self.size).pretrain


def step_of(model: GeoMIM, forward: Callable, batch: GeoMIMBatch, bf16: bool, optimizer: bool) -> Callable[[], list]:
    """A function that does a training step and returns the losses: total, reconstruction, depth."""
    adamw = torch.optim.AdamW(model.parameters(), 0.0, fused=True) if optimizer else None  # rate 0: rounds alike
    images, lidar_bev = batch.normalised_images(), batch.lidar_bev()

    def step() -> list[float]:
        model.zero_grad()
        cameras = model.geometry(batch.cameras, tuple(images.shape[-2:]))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            made = forward(images, cameras, batch.groups)
        losses = model.losses(made, lidar_bev, batch.depth_map)
        losses.total.backward()
        if adamw is not None:
            adamw.step()
        return [loss.item() for loss in losses]

    return step


def work(variant: str, setup: Setup, rounds: int) -> None:
    """Print, for each of 1 + rounds steps, a line of JSON: losses, seconds, CPU seconds, MiB added to the peak."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    noise = NoiseForGeoMIM(setup.config, setup.size, setup.views)
    model, batch = noise.build(), noise.batch(range(setup.batch), np.arange(setup.batch))
    set_checkpointing(model, "block" if "checkpointing" in variant else "mlp")

    def reference(images: Tensor, _, groups: Tensor) -> Reconstruction:
        return geomim_reference.forward(model, images, batch.cameras, groups)

    step = step_of(model, reference if variant == "reference" else model, batch, "bf16" in variant, setup.optimizer)
    before = resident_mib("VmRSS")
    for _ in range(1 + rounds):
        begin, cpu = perf_counter(), process_time()
        losses = step()
        seconds = perf_counter() - begin, process_time() - cpu
        print(json.dumps([losses, *seconds, resident_mib("VmHWM") - before]), flush=True)


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
    size = "x".join(map(str, setup.config.image.size))
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
        marks = marks_of(variant) if setup.size == "full" else {}
        met = all(faster >= mark if name == "faster" else share <= mark for name, mark in marks.items())
        good &= agrees and met
        wanted_of = ", ".join(f"{name} {'>=' if name == 'faster' else '<='} {mark}" for name, mark in marks.items())
        print(
            f"{variant:18}{seconds:10.1f} s{faster:11.2f}x{cpu:10.1f} s{cheaper:11.2f}x{memory_added:8.0f} MiB"
            f"{share:12.2f}{losses[0]:12.6f}{error:12.0e} {'OK' if agrees else 'FAIL'}"
            + (f"   mark: {wanted_of}: {'OK' if met else 'FAIL'}" if marks else ""),
            flush=True,
        )
    return good


def marks_of(variant: str) -> dict[str, float]:
    """What is asked of a variant at full size, by the column."""
    if variant == "bf16" and not has_bf16_products():
        return {}
    marks = {"faster": FASTER.get(variant), "share": MEMORY.get(variant)}
    return {name: mark for name, mark in marks.items() if mark is not None}


def has_bf16_products() -> bool:
    """Whether this CPU multiplies matrices of bf16 by instructions of its own; without, it takes longer than fp32."""
    return any(word in Path("/proc/cpuinfo").read_text() for word in BF16_PRODUCTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("swin-b", "swin-l"), default="swin-b")
    parser.add_argument("--size", choices=("full", "small"), default="full", help="small: a quick run, no marks")
    parser.add_argument("--batch", type=int, default=1, help="samples")
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2, help="timed steps, after one that warms up")
    parser.add_argument("--optimizer", action="store_true", help="end a step with AdamW's")
    parser.add_argument("--checkpointing", action="store_true", help="also measure with activation checkpointing")
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--setup", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, Setup(**arguments.setup), arguments.rounds)
    variants = [v for v in VARIANTS if arguments.checkpointing or "checkpointing" not in v]
    fields = ("model", "size", "batch", "views", "optimizer")
    setup = Setup(**{field: getattr(arguments, field) for field in fields})
    sys.exit(0 if compare(setup, variants, arguments.threads, arguments.rounds) else 1)


if __name__ == "__main__":
    main()
