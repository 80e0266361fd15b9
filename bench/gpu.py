"""What a step costs on a GPU: a table of trainings, kernels and evaluations, in a quarter of an hour.

    python bench/gpu.py [--minutes 15] [--out gpu] [--config CONFIG --root ARTIFACTS [--dataroot DIR]]

GeoMIM's pretraining with Swin-B and Swin-L by samples a step, precision, compilation and checkpointing; steps of
BEVDet4D and BEVStereo4D as their presets configure them, and an evaluated sample of each; whether the host waits for
the device anywhere; the LiDAR teacher that the cache spares. Samples are noise that lies in page-locked memory; with a
config and a root whose caches are finished, also real ones, loaded as in a training.

Rows come in the order of their importance until time is up, and each is written to OUT.json and OUT.md at once. What
shares a network has a process of its own: one that fails, is out of memory or takes too long costs its own rows alone.

MFU: the products of the model's forward and backward pass, nothing recomputed, of the dense bf16 peak, in every
precision. host: ms until a step is said, begun on an idle device; device: ms of its kernels. A step much longer than
its kernels is bound by the host. Exit code 1 where the host waits for the device within a forward or backward pass.

    python bench/gpu.py --device cpu --size small --minutes 2

tries every kind of row: device is then the CPU time of all threads, memory that of the process, kernels are operations.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from device_clock import told
from gpu_rows import KINDS, WAITS, Job, Place, Row

from storage.atomic import write_bytes, write_json

# Dense peak of the tensor cores in bf16 (TFLOP/s); --peak-tflops for others.
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "4090": 165.0, "3090": 71.0}
MOST = 1 / 3  # of the time that one job may take
HOST_BOUND = 0.8  # kernels' share of a step, below which the device idles too much
COLUMNS = (
    *("what", "network", "speed", "batch", "samples/s", "TFLOP/s", "MFU", "GiB"),
    *("step ms", "host", "device", "bound by", "note"),
)


def jobs(size: str, real: bool) -> list[Job]:
    """The most important first."""
    full = size == "full"
    batches = (1, 4, 8, 16) if full else (1, 2)
    b, large = "geomim-swin-b", "geomim-swin-l"
    few, many = (4, 8) if full else (1, 1)
    bf16, compiled = {"precision": "bf16"}, {"precision": "bf16", "compile": True}
    detectors = "bevdet4d-geomim", "bevstereo4d-geomim"
    loaded = [Job("loader", batches=(few,), stage=stage) for stage in ("pretrain", "finetune")] if real else []
    out = [
        Job("waiting", b, (1,), bf16),
        Job("steps", b, batches, bf16),
        *([Job("steps", b, (many,), compiled)] if full else []),
        *loaded,
        *(Job("steps", name, (few,), stage="finetune") for name in detectors),
        *(Job("evaluation", name, stage="finetune") for name in detectors),
        Job("steps", b, batches if full else (1,), {"precision": "fp32"}),
        *(Job("waiting", name, (1,), stage="finetune") for name in detectors),
        *(Job("steps", b, (many,), bf16 | {"checkpointing": what}) for what in ("none", "block")),
        Job("steps", large, batches if full else (1,), bf16),
        Job("steps", b, batches if full else (1,), {"precision": "tf32"}),
        Job("teacher"),
        *([] if full else [Job("steps", b, (1,), compiled)]),
    ]
    if full:
        out += [
            Job("steps", "bevdet4d-one-gpu", (8,), stage="finetune"),
            *(Job("steps", name, (few,), bf16, "finetune") for name in detectors),
            Job("steps", large, (many,), compiled),
            Job("steps", b, (1, 4, 16), compiled),
            *(Job("steps", large, batches, {"precision": precision}) for precision in ("fp32", "tf32")),
            Job("steps", "bevstereo4d-geomim-512x1408", (2,), stage="finetune"),
            Job("steps", large, (1, 4, 16), compiled),
        ]
    return out


# A process a job. It is forked, which spares it the seconds of imports: CUDA is not touched before.


def work(job: Job, place: Place, connection: Connection) -> None:
    """Send the job's rows, then None."""
    os.setpgrp()  # ends with the compiler's processes
    try:
        if place.device == "cpu":
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
        for row in KINDS[job.kind](job, place):
            connection.send(row)
    except torch.OutOfMemoryError:
        connection.send(failed(job, "out of memory"))
    except BaseException as error:
        connection.send(failed(job, told(error)))
    connection.send(None)


def failed(job: Job, why: str) -> Row:
    speed = ", ".join(f"{value}" if name != "compile" else "compiled" for name, value in job.speed.items())
    return Row(f"{job.kind}, {job.stage}", job.preset, speed or "as configured", job.batches[0], note=why)


def rows_of(job: Job, place: Place, seconds: float) -> Iterator[Row]:
    """As they come, for so long at most."""
    until = time.monotonic() + seconds
    ours, theirs = get_context("fork").Pipe(duplex=False)
    process = get_context("fork").Process(target=work, args=(job, place, theirs))
    process.start()
    theirs.close()
    try:
        while ours.poll(max(0.0, until - time.monotonic())):
            row = ours.recv()
            if row is None:
                return
            yield row
        yield failed(job, "time was up")
    except EOFError:
        process.join()
        yield failed(job, f"its process ended with code {process.exitcode}")
    finally:
        end(process.pid)
        process.kill()
        process.join()


def end(pid: int | None) -> None:
    """A job's process, and those that it started."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def device_name(connection: Connection) -> None:
    connection.send(torch.cuda.get_device_name() if torch.cuda.is_available() else "")


def cuda_name() -> str:
    """Of the GPU, "" where there is none: asked by another process, after which this one can still fork."""
    ours, theirs = get_context("fork").Pipe(duplex=False)
    process = get_context("fork").Process(target=device_name, args=(theirs,))
    process.start()
    theirs.close()
    try:
        return str(ours.recv())
    except EOFError:
        return ""
    finally:
        process.join()


# The table


def shown(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else format(value, form)


@dataclass
class Table:
    """All rows so far, in two files."""

    title: str
    stem: Path
    peak: float | None  # TFLOP/s
    cuda: bool
    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(self.line(row), flush=True)
        self.stem.parent.mkdir(parents=True, exist_ok=True)
        about = {"title": self.title, "peak_tflops": self.peak, "torch": torch.__version__}
        write_json(self.stem.with_suffix(".json"), about | {"rows": [asdict(row) for row in self.rows]})
        write_bytes(self.stem.with_suffix(".md"), str(self).encode())

    def line(self, row: Row) -> str:
        tflops = row.flops * row.samples_per_second / 1e12 if row.flops and row.samples_per_second else None
        mfu = tflops / self.peak if tflops is not None and self.peak else None
        times = (shown(ms) for ms in (row.step_ms, row.host_ms, row.device_ms))
        cells = row.what, row.network, row.speed, str(row.batch), shown(row.samples_per_second, ".2f")
        cells += shown(tflops, ".3g"), shown(mfu, ".1%"), shown(row.memory_gib), *times, self.bound_by(row), row.note
        return f"| {' | '.join(cells)} |"

    def bound_by(self, row: Row) -> str:
        if not self.cuda or row.device_ms is None or row.step_ms is None:
            return "-"
        return "host" if row.device_ms < HOST_BOUND * row.step_ms else "device"

    @property
    def head(self) -> str:
        return f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"

    def end(self) -> str:
        """The teacher's share, and the kernels of the fastest pretraining."""
        steps = [row for row in self.rows if row.what == "pretraining" and row.samples_per_second]
        if not steps:
            return ""
        best, out = max(steps, key=lambda row: row.samples_per_second or 0.0), []
        of = f"{best.network}, {best.speed}, batch {best.batch}"
        for row in self.rows:
            if row.what == "teacher" and row.step_ms and best.step_ms:
                share = row.step_ms / (row.step_ms + best.step_ms / best.batch)
                out.append(f"To encode the teacher's target online would take {share:.0%} of the time of {of}.\n")
        if best.kernels:
            kind = "kernel" if self.cuda else "operation"
            out += [f"Of {of}:\n", f"| {kind} | ms a step | share | calls |", "|---|---|---|---|"]
            whole = (best.device_ms if self.cuda else best.step_ms) or 1.0
            out += [
                f"| {name[:90].replace('|', '/')} | {ms:.2f} | {ms / whole:.1%} | {calls} |"
                for name, ms, calls in best.kernels
            ]
        return "\n".join(out)

    def __str__(self) -> str:
        return "\n".join([f"{self.title}\n", self.head, *map(self.line, self.rows), "", self.end(), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0, help="after which nothing more is begun or waited for")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("full", "small"), default="full", help="small: to try the script")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="OUT.json and OUT.md are written (default: gpu)")
    parser.add_argument("--config", type=Path, help="whose pretraining and finetuning are fed with real samples")
    parser.add_argument("--root", type=Path, help="where that config's artifacts are")
    parser.add_argument("--dataroot", type=Path, help="in place of the config's")
    parser.add_argument("--peak-tflops", type=float, help="of the GPU in bf16, dense, where its name does not tell")
    options = parser.parse_args()
    if (options.config is None) != (options.root is None):
        parser.error("--config and --root belong together: the config says which caches of the root are read")
    start, cuda = time.monotonic(), options.device == "cuda"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a job's process ends too
    name = cuda_name() if cuda else "CPU"
    if not name:
        sys.exit("torch finds no CUDA device; --device cpu --size small tries the script")
    peak = options.peak_tflops or next((tflops for part, tflops in PEAK_TFLOPS.items() if part in name), None)
    about = f"peak {peak:.0f} TFLOP/s" if peak else "peak not known"
    title = f"{name} ({about}), torch {torch.__version__}, size {options.size}; steps with AdamW's"
    table = Table(title, options.out, peak, cuda)
    print(f"{title}\n\n{table.head}", flush=True)
    seconds, known = 60 * options.minutes, dict[str, float]()
    for job in jobs(options.size, options.config is not None):
        left = start + seconds - time.monotonic()
        if left <= 1:
            table.add(failed(job, "time was up"))
            continue
        most = min(left, MOST * seconds)
        place = Place(
            options.device, options.size, time.monotonic() + most, options.config, options.root, options.dataroot
        )
        for row in rows_of(replace(job, flops=known.get(job.preset)), place, most):
            table.add(row)
            known |= {job.preset: row.flops} if row.flops else {}
    print(f"\n{table.end()}\n\n{options.out}.json, {options.out}.md: {time.monotonic() - start:.0f} s", flush=True)
    sys.exit(any(row.note.startswith(WAITS) for row in table.rows))


if __name__ == "__main__":
    main()
