"""Training of the demo's networks on a CPU, alone and beside busy processes, by how threads wait for each other.

    python bench/neighbours.py [fit] [pretrain] [finetune] [--busy 0 2] [--ways NAME ...] [--steps 40] [--minutes 20]

Every run is a whole process: the real stage on two simulated scenes, so many steps. The ways and the numbers of busy
processes beside them take turns until the minutes are over. Steps a second are the steps that count over their seconds.
In brackets: of the first way's; of the same way's alone; and how many steps those are.

The machine may be in use otherwise: a run begins when nobody computes, and of its time only those spans of a second
count in which nobody else used more than `--strangers` cores (0.1; of the kernel's busy time, what neither this run nor
its neighbours took). Where it never is quiet, `--strangers 99` takes everything as it comes, and `--real-time` (as
root) gives the steps that count the machine, as if they were alone: for seconds, since others stand still meanwhile.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from common.cores import COUNTS, available_cores  # noqa: E402
from storage.artifact import Artifact  # noqa: E402
from storage.index import write_index  # noqa: E402
from tasks.engine.config import PipelineConfig, load_config  # noqa: E402
from tasks.engine.stage import STAGES, Inputs  # noqa: E402

STAGES_HERE = ("fit", "pretrain", "finetune")
SCENES = ("scene-0061", "scene-0553")  # of train: without val, nothing is evaluated
WARM_UP = 3  # steps
SPAN = 1.0  # s, at least: the kernel counts in hundredths

CORES = available_cores()
ALL, FEWER = dict.fromkeys(COUNTS, str(CORES)), dict.fromkeys(COUNTS, str(max(1, CORES - 1)))
WAYS = {
    "as it was": ALL,
    "passive": ALL | {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin 1000": ALL | {"GOMP_SPINCOUNT": "1000"},
    "spin 3000": ALL | {"GOMP_SPINCOUNT": "3000"},
    "spin 10000": ALL | {"GOMP_SPINCOUNT": "10000"},
    "spin 30000": ALL | {"GOMP_SPINCOUNT": "30000"},
    "a thread fewer": FEWER,
}


def demo(steps: int) -> PipelineConfig:
    """The demo's config for so many steps a stage."""
    config = load_config(ROOT / "configs/demo.yaml")
    changes = {
        "fit": {"epochs": steps / (len(SCENES) * config.simulate.keyframes)},
        "teacher": {"weights": "random", "gate_samples": 0, "workers": 1},
        "pretrain": {"steps": steps, "evaluate_every": steps, "held_out": 1, "probe_samples": 0},
        "finetune": {"steps": steps, "init": "random"},
    }
    whole = config.model_dump()
    for stage, fields in changes.items():
        whole[stage] |= fields | {"device": "cpu"}
    return PipelineConfig.model_validate(whole)


# The world, and a stage on it


def prepare(folder: Path, stages: list[str]) -> None:
    """The world, its index and the caches that `stages` need."""
    from simulate.write import simulate
    from tasks.ingest.run import ingest

    config = demo(1)
    simulate(config.simulate, folder / "data", SCENES)
    arrays, attributes, _ = ingest(folder / "data", config.version, config.ingest)
    (folder / "ingest" / "x").mkdir(parents=True)
    write_index(folder / "ingest" / "x" / "index.zarr", arrays, attributes)
    for stage in ("depth", "teacher") if "pretrain" in stages else ("depth",) if "finetune" in stages else ():
        run(folder, stage, getattr(config, stage))


def run(folder: Path, stage: str, settings: object) -> None:
    """Run a stage on what stands in `folder`."""
    artifacts = {name: Artifact(folder, name, "x") for name in STAGES if (folder / name / "x").is_dir()}
    out = Artifact(folder, stage, "x")
    out.path.mkdir(parents=True)
    STAGES[stage].run(settings, Inputs(folder / "data", "v1.0-mini", artifacts), out)


# One run, in a process of its own


def work(folder: Path, stage: str, steps: int, beside: list[int], real_time: bool) -> None:
    """Run the stage and print, of each span of steps, how many, the seconds, and the cores that strangers used."""
    from training import loop

    known = [psutil.Process(), *map(psutil.Process, beside)]
    seen = []  # after each step: the time, and the strangers' CPU seconds so far

    class Watched(loop.MetricLog):
        def write(self, step: int, metrics: dict[str, float]) -> None:
            ours = sum(sum(process.cpu_times()[:2]) for process in known)
            seen.append((time.monotonic(), busy_seconds() - ours))
            super().write(step, metrics)
            if real_time and step in (WARM_UP, steps - 1):
                schedule(os.SCHED_RR if step == WARM_UP else os.SCHED_OTHER)

    loop.MetricLog = Watched
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for needed in ("data", "ingest", "depth", "teacher"):
            if (folder / needed).exists():
                (Path(name) / needed).symlink_to(folder / needed)
        run(Path(name), stage, getattr(demo(steps), stage))
    spans, start = [], WARM_UP
    for place in range(WARM_UP, steps):
        seconds, strangers = (b - a for a, b in zip(seen[start], seen[place]))
        if seconds >= SPAN:
            spans.append((place - start, seconds, strangers / seconds))
            start = place
    print(json.dumps(spans))


def schedule(policy: int) -> None:
    """Of all threads of this process."""
    for thread in psutil.Process().threads():
        os.sched_setscheduler(thread.id, policy, os.sched_param(int(policy == os.SCHED_RR)))


def busy_seconds() -> float:
    """Of all cores, since the machine was started; those that other machines took of it, too."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))


def wait_for_quiet(strangers: float, end: float) -> None:
    """Return when nobody has used more cores than that for two seconds, or at the end."""
    while time.monotonic() < end:
        before = busy_seconds()
        time.sleep(2)
        if busy_seconds() - before < 2 * strangers:
            return


def quiet_steps(folder: Path, stage: str, way: str, busy: int, options: argparse.Namespace) -> tuple[int, float]:
    """(steps that count, their seconds) of a process beside `busy` others that compute without end."""
    beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    command = [sys.executable, __file__, stage, "--steps", str(options.steps), "--worker", str(folder)]
    command += ["--real-time"] if options.real_time else []
    try:
        done = subprocess.run(
            [*command, "--beside", *(str(process.pid) for process in beside)],
            env=os.environ | WAYS[way],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    finally:
        for process in beside:
            process.kill()
            process.wait()
    if done.returncode:
        sys.exit(done.stderr)
    spans = [span for span in json.loads(done.stdout.splitlines()[-1]) if span[2] < options.strangers]
    return sum(span[0] for span in spans), sum(span[1] for span in spans)


# The comparison


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", default=["fit"])
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--strangers", type=float, default=0.1)
    parser.add_argument("--real-time", action="store_true")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--beside", type=int, nargs="*", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.stages) - set(STAGES_HERE):
        parser.error(f"there is no stage {unknown.pop()} here; there are {', '.join(STAGES_HERE)}")
    if options.worker:
        work(options.worker, options.stages[0], options.steps, options.beside, options.real_time)
        return
    cells = [(stage, busy, way) for stage in options.stages for way in options.ways for busy in options.busy]
    found = dict.fromkeys(cells, (0, 0.0))
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), options.stages)
        for stage, busy, way in itertools.cycle(cells):
            wait_for_quiet(options.strangers, end)
            if time.monotonic() > end:
                break
            steps, seconds = quiet_steps(Path(name), stage, way, busy, options)
            before = found[stage, busy, way]
            found[stage, busy, way] = before[0] + steps, before[1] + seconds
            print(f"{stage}, {busy} busy, {way}: {steps} steps in {seconds:.1f} s", file=sys.stderr, flush=True)
    for stage in options.stages:
        show(stage, found, options)


def show(stage: str, found: dict[tuple[str, int, str], tuple[int, float]], options: argparse.Namespace) -> None:
    rates = {cell: steps / seconds if steps else float("nan") for cell, (steps, seconds) in found.items()}
    print(f"\n{f'{stage}, steps a second':26}" + "".join(f"{f'{busy} busy':>32}" for busy in options.busy))
    for way in options.ways:
        print(f"{way:26}", end="")
        for busy in options.busy:
            rate, first = rates[stage, busy, way], rates[stage, busy, options.ways[0]]
            of = f"{rate / first:.2f}, {rate / rates[stage, options.busy[0], way]:.2f}"
            print(f"{f'{rate:.3g} ({of}; {found[stage, busy, way][0]} steps)':>32}", end="")
        print(flush=True)


if __name__ == "__main__":
    main()
