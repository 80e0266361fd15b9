"""`geomim doctor`: is this installation able to do the work? One line a check, with the remedy where one fails."""

import importlib
import importlib.metadata
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from common.cores import available_cores
from flows.show import console

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
MIN_GIGABYTES = 5.0


@dataclass(frozen=True)
class Check:
    """One question and its answer."""

    name: str
    ok: bool
    answer: str


def check_all() -> list[Check]:
    """Every check, in the order in which a user would mend them."""
    return [check_python(), check_packages(), check_imports(), check_devices(), check_disk(Path.cwd()), check_server()]


def check_python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = (3, 11) <= sys.version_info[:2] <= (3, 12)
    return Check("python", ok, version if ok else f"{version}; geomim needs 3.11 or 3.12")


def check_packages() -> Check:
    """Installed versions against the lock."""
    if not LOCK.is_file():
        return Check("packages", False, f"{LOCK} is missing; install from a clone with `make setup`")
    wrong = []
    for line in LOCK.read_text().split():
        name, _, locked = line.partition("==")
        try:
            installed = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            installed = "none"
        if installed != locked:
            wrong.append(f"{name} {installed}, not {locked}")
    if wrong:
        return Check("packages", False, f"{'; '.join(wrong[:5])}; run `make clean setup`")
    return Check("packages", True, "as locked")


def check_imports() -> Check:
    """The packages that most often break: torch, mmdet3d through our door, the devkit, Prefect."""
    for name in ("torch", "models.openmmlab", "nuscenes.nuscenes", "prefect", "zarr", "simplejpeg"):
        try:
            importlib.import_module(name)
        except Exception as error:
            return Check("imports", False, f"{name}: {type(error).__name__}: {error}")
    return Check("imports", True, "torch, mmdet3d, nuscenes-devkit, prefect, zarr, simplejpeg")


def check_devices() -> Check:
    import torch

    names = [f"{torch.cuda.get_device_name(i)} ({_gpu_precisions(i)})" for i in range(torch.cuda.device_count())]
    able = torch.cpu.get_capabilities()
    bf16 = "bf16" if able.get("amx_bf16") or able.get("avx512_bf16") else "bf16 would be slower"
    return Check("devices", True, f"{', '.join(names) or 'no CUDA device'}; {available_cores()} cores (fp32, {bf16})")


def _gpu_precisions(device: int) -> str:
    """Those of a training's `precision` that its tensor cores have."""
    import torch

    return "fp32, tf32, bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32; no tf32, no bf16"


def check_disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / 1e9
    answer = f"{free:.0f} GB free in {folder}"
    return Check("disk", free > MIN_GIGABYTES, answer if free > MIN_GIGABYTES else f"{answer}; make room")


def check_server() -> Check:
    from flows.server import users_api

    url = users_api()
    return Check("prefect", True, f"uses {url}" if url else "no server is set; each run starts its own")


def show_checks(checks: list[Check]) -> None:
    out = console()
    for check in checks:
        mark = "[green]ok  [/]" if check.ok else "[red]FAIL[/]"
        out.print(f"{mark} {check.name:9} {check.answer}", soft_wrap=True)
