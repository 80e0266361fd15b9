"""A step on a device: its time there and on the host, its memory, its kernels, whether the host ever waits for it."""

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

SECONDS, MOST = 2.0, 20  # of the timed steps
FEWEST = {"cuda": 3, "cpu": 1}
WARM = {"cuda": 3, "cpu": 1}  # steps before them
KERNELS = 10  # that are named
META = torch.device("meta")

Step = Callable[[], object]


class Kernel(NamedTuple):
    """All calls of a kernel in a step; on a CPU, of an operation."""

    name: str
    ms: float
    calls: int


class Times(NamedTuple):
    """Of a step, in ms."""

    step: float  # by the clock, one after another
    host: float  # until the host has said what is to be computed, begun with an idle device
    device: float | None  # that its kernels take together; on a CPU the CPU time of all threads
    kernels: list[Kernel]  # the ten that take longest
    note: str


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(step: Step, device: torch.device) -> Times:
    """Some steps after those that warm up; the last is profiled."""
    for _ in range(WARM[device.type]):
        seconds = _once(step, device)[1]
    count = min(MOST, max(FEWEST[device.type], int(SECONDS / seconds)))
    wait(device)
    begin, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        step()
    wait(device)
    each, used = (1e3 * (now - before) / count for now, before in _since(begin, cpu))
    host = each
    if device.type == "cuda":
        host = 1e3 * statistics.median(_once(step, device)[0] for _ in range(FEWEST["cuda"]))
    try:
        busy, kernels = profiled(step, device)
        note = ""
    except Exception as error:  # a profiler that does not work is no reason to lose the times
        busy, kernels, note = None, [], f"no profile: {told(error)}"
    return Times(each, host, busy if device.type == "cuda" else used, kernels, note)


def _since(begin: float, cpu: float) -> list[tuple[float, float]]:
    return [(time.perf_counter(), begin), (time.process_time(), cpu)]


def _once(step: Step, device: torch.device) -> tuple[float, float]:
    """Seconds until the call returned, and until the device had done it."""
    wait(device)
    begin = time.perf_counter()
    step()
    called = time.perf_counter() - begin
    wait(device)
    return called, time.perf_counter() - begin


def profiled(step: Step, device: torch.device) -> tuple[float, list[Kernel]]:
    """Milliseconds of all kernels of a step, and of those that take longest."""
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as made:
        step()
        wait(device)
    rows = []
    for event in made.key_averages():
        if cuda and event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False):
            rows.append(Kernel(event.key, event.self_device_time_total / 1e3, event.count))
        if not cuda:
            rows.append(Kernel(event.key, event.self_cpu_time_total / 1e3, event.count))
    rows.sort(key=lambda kernel: -kernel.ms)
    return sum(row.ms for row in rows), rows[:KERNELS]


def reset_peak(device: torch.device) -> None:
    """The next `peak_gib` is of what comes now."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_gib(device: torch.device) -> float:
    """Of the device's allocated memory; on a CPU of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resident_mib("VmHWM") / 1024


def resident_mib(field: str) -> float:
    """A figure of this process: VmRSS, resident now, or VmHWM, its peak (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def flops(step: Step) -> float:
    """Of a step's products (matrix, convolution, attention), forward and backward, of tensors without numbers."""
    with mock.patch.object(torch, "autocast", return_value=nullcontext()), FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def waits_for_nothing(step: Step) -> str:
    """Where the host waits for a CUDA device in a step, "" if nowhere."""
    wait(torch.device("cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        return where(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


def where(error: BaseException) -> str:
    """What was raised, and the line of ours that it came from."""
    trace, ours = error.__traceback__, ""
    root = str(Path(__file__).resolve().parents[1])
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(root):
            ours = f" ({Path(file).relative_to(root)}:{trace.tb_lineno})"
        trace = trace.tb_next
    return told(error) + ours


def told(error: BaseException) -> str:
    """An error in a line."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:160]}".replace("|", "/")
