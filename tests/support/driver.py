"""The real command line, driven by the end-to-end tests."""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from flows.cli import app
from tasks.engine.config import load_config
from tasks.engine.execute import execute
from tasks.engine.plan import make_plan
from tasks.engine.stage import Step

TINY = Path(__file__).parent / "tiny.yaml"
GEOMIM = Path(sys.executable).with_name("geomim")


@dataclass
class Cli:
    """The command line on one world and one root."""

    dataroot: Path
    root: Path

    def command(self, *args):
        options = ["--config", TINY, "--dataroot", self.dataroot, "--root", self.root]
        return [str(part) for part in (GEOMIM, *args[:1], *options, *args[1:])]

    def start(self, *args):
        return subprocess.Popen(
            self.command(*args), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def __call__(self, *args, code=0):
        done = subprocess.run(self.command(*args), env=environment(), capture_output=True, text=True, timeout=500)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def store(self, *args, code=0):
        """A command about what is in the root, which reads no config."""
        command = [str(part) for part in (GEOMIM, *args[:1], "--root", self.root, *args[1:])]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=500)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def gain(self, *args, code=0):
        options = ["--config", TINY, "--dataroot", self.dataroot, "--root", self.root]
        command = [str(part) for part in (GEOMIM, "experiment", "gain", *options, *args)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=500)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def here(self, stage, *settings):
        """A stage run in this process, for tests of what comes of it: a process of its own imports for seconds."""
        execute(self.step(stage, *settings))

    def step(self, stage, *settings) -> Step:
        """What the command of a stage would run. settings: as for --set."""
        plan = make_plan(load_config(TINY, list(settings), self.dataroot, None), self.root)
        (planned,) = [planned for planned in plan if planned.name == stage]
        return planned.ready()

    def status(self, *args):
        """What `geomim status --json` prints, by stage. In this process: the tests ask a hundred times."""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            app(self.command("status", "--json", *args)[1:], standalone_mode=False)
        return {row["stage"]: row for row in json.loads(printed.getvalue())}

    def path(self, stage, *args):
        return Path(self.status(*args)[stage]["path"])


def environment():
    """The user's, without what would lead a run elsewhere."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "GEOMIM"))}
    return keep


def wait_for(condition, seconds=180.0, every=0.05):
    """The first true value of `condition()`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(every)
    raise AssertionError("waited in vain")
