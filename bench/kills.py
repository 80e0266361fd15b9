"""Stages that are killed at random instants, again and again, until they are through (see faults.py)."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import psutil
from tiny_world import COMMANDS, OFTEN, STAGES, Cli, Line, World, contents_of, environment, same

from storage.artifact import Artifact
from storage.store import leftovers


def kills(world: World, count: int, chance: random.Random) -> Line:
    """Kill stages until so many kills are done; each stage is run to its end afterwards."""
    line = Line(f"kill -9 at a random instant, all {len(STAGES)} stages")
    while line.done < count:
        for stage in STAGES:
            with world.copy() as cli:
                _kill_one(cli, stage, line, chance, most=12)
            print(f"kills: {line.done} of {count}", file=sys.stderr, flush=True)
            if line.done >= count:
                break
    return line


def _kill_one(cli: Cli, stage: str, line: Line, chance: random.Random, most: int) -> None:
    artifact, command = Artifact(cli.root, stage, cli.status()[stage]["key"]), COMMANDS.get(stage, stage)
    expected = contents_of(artifact.path)
    artifact.remove()
    longest, killed = 12.0, 0  # s: a start of torch and the work; shorter when it is through sooner
    while killed < most:
        start = time.monotonic()
        running = cli.start(command, *OFTEN)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(chance.uniform(0.0, longest))
        if running.poll() is not None:
            longest = min(longest, time.monotonic() - start)
            output, _ = running.communicate()
            if running.returncode:
                line.wrong.append(f"{stage}: {output[-500:]}")
                return
            break
        victims = psutil.Process(running.pid).children(recursive=True) or [psutil.Process(running.pid)]
        victim = chance.choice([*victims, psutil.Process(running.pid)])
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.communicate(timeout=60)
        _gone(victims)
        killed += 1
        line.done += 1
        if artifact.has_manifest() and list(artifact.damages("all")):
            line.wrong.append(f"{stage}: a finished artifact is damaged after a kill")
    done = subprocess.run(cli.command(command, *OFTEN), env=environment(), capture_output=True, text=True)
    found = contents_of(artifact.path)
    equal = found.keys() == expected.keys() and all(same(found[name], expected[name]) for name in expected)
    if done.returncode or not equal or list(artifact.damages("all")):
        line.wrong.append(f"{stage} after {killed} kills: {done.stderr[-500:] or 'another result'}")
    else:
        line.count("the same result afterwards")
    left = [path for path in leftovers(cli.root) if path.name.startswith(".trash")]
    if left:
        line.wrong.append(f"{stage}: left behind {left}")


def _gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=10)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(process.pid, signal.SIGKILL)
