"""A stage in a process of its own: it takes its memory with it when it ends, and dies when those who wait for it die.

`run_in_child` starts `python -m tasks.engine.child`, hands it the step on standard input and gets one JSON line back
on a pipe. The child watches its parent and, under a Prefect worker, the worker: a cancelled flow or a killed worker
leaves no training process behind, not even after `kill -9`, nor does a flow whose worker is gone start one.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

from common.cores import environment_of_child
from common.errors import DataError, FileSystemError, StageFailed, UserError
from common.garbage import leave_unsearched
from common.processes import die_with, how_it_ended
from common.settings import Settings
from tasks.engine.stage import Step

WATCHED = "GEOMIM_WATCHED_PIDS"
PARENT = os.getppid()  # taken now: a process whose parent dies is given another
COMMAND = [sys.executable, "-m", "tasks.engine.child"]

# glibc hands big blocks back to the kernel and takes them, zeroed page by page, at the next step: keep them instead.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"}

# What torch says where memory does not suffice: of a GPU, of a CPU, of a size that no number holds.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "Storage size calculation overflowed")
# What a config may offer against it, and in which direction.
LESS_MEMORY = {
    "accumulate": "higher",
    "checkpointing": "to block",
    "batch_size": "lower",
    "batch": "lower",
    "part_size": "lower",
    "workers": "to a low number",
}

# What a killed process left behind (semaphores of a compressor), Python's tracker clears away: it need not tell.
QUIET = {"PYTHONWARNINGS": "ignore::UserWarning:multiprocessing.resource_tracker"}


_running: set[subprocess.Popen] = set()
_ended = threading.Event()  # Ctrl-C, or a cancelled run: no other child is started


class Bug(StageFailed):
    """The stage's process ended by an exception that nobody expected: the same command would end so again."""


KINDS = {kind.__name__: kind for kind in (UserError, DataError, StageFailed, Bug)}


def run_in_child(
    step: Step, force: bool = False, relay: Callable[[str], None] | None = None, resume: bool = False
) -> None:
    """Run one step in a child process group and wait for it.

    With `relay`, the child's output comes line by line; without, it goes to this process's own (a terminal keeps its
    progress bar). resume: whether an earlier try was forced and is to be gone on from. Raises UserError or DataError
    with the child's sentence, StageFailed or Bug otherwise.
    """
    stage = step.stage.name
    worker = [PARENT] if "PREFECT__FLOW_RUN_ID" in os.environ else []
    if worker and os.getppid() != PARENT:
        raise StageFailed(f"{stage}: the Prefect worker is gone; start one, and the same run goes on from there")
    spec = json.dumps({"step": step.as_json(), "force": force and not resume})
    report_read, report_write = os.pipe()
    child = subprocess.Popen(
        [*COMMAND, str(report_write)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if relay else None,
        stderr=subprocess.STDOUT if relay else None,
        pass_fds=(report_write,),
        start_new_session=True,
        env=MALLOC
        | QUIET
        | environment_of_child()
        | {WATCHED: ",".join(map(str, [os.getpid(), *worker])), "PYTHONUNBUFFERED": "1"},
        text=True,
    )
    os.close(report_write)
    _running.add(child)
    try:
        if _ended.is_set():  # looked at last: from now on `_end_children` finds the child
            raise UserError(f"{stage}: stopped")
        assert child.stdin is not None
        child.stdin.write(spec)
        child.stdin.close()
        if relay and child.stdout:
            for line in child.stdout:
                relay(line.rstrip())
        with os.fdopen(report_read) as pipe:
            report = json.loads(pipe.read() or "{}")
        code = child.wait()
    finally:
        _running.discard(child)
        _kill_group(child)
    if _ended.is_set():
        raise UserError(f"{stage}: stopped")
    if report:
        raise KINDS[report["kind"]](again(report["sentence"], force))
    if code:
        sentence = f"the process of {stage} {how_it_ended(code)}; the same command goes on from there"
        raise StageFailed(again(sentence, force))


@contextlib.contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Within it Ctrl-C ends the children of all threads at once; else each thread would wait for its own to finish."""

    def end(*_: object) -> None:
        _end_children()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _ended.clear()


@contextlib.contextmanager
def ended_by_cancelling() -> Iterator[None]:
    """Left by what is no error, as the signal is by which Prefect cancels a run, it ends the children of all threads:
    else Prefect would wait for these threads, until it kills the run's process half a minute later."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception):
            _end_children()
        raise


def _end_children() -> None:
    _ended.set()
    for child in list(_running):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def again(sentence: str, force: bool) -> str:
    """A sentence that sends the user to the same command: with --force that would begin at nothing once more."""
    return sentence.replace("the same command", "the same command without --force") if force else sentence


def main() -> int:
    die_with([int(pid) for pid in os.environ[WATCHED].split(",")])
    leave_unsearched()
    from tasks.engine.execute import execute

    spec = json.loads(sys.stdin.read())
    step = Step.from_json(spec["step"])
    with os.fdopen(int(sys.argv[1]), "w") as report:
        try:
            execute(step, spec["force"])
        except Exception as error:
            told = as_told(step.stage.name, step.config, error)
            json.dump({"kind": type(told).__name__, "sentence": str(told)}, report)
            return exit_code(told)
    return 0


def as_told(stage: str, config: Settings | None, error: Exception) -> UserError | StageFailed:
    """What a user is told of a stage's exception: one of KINDS. The traceback of a bug is printed.

    config: the stage's, whose fields may be a remedy.
    """
    if isinstance(error, UserError):
        return DataError(str(error)) if isinstance(error, DataError) else UserError(str(error))
    if isinstance(error, StageFailed | FileSystemError):  # one of the stage's processes was killed, or the disk failed
        return StageFailed(f"{stage}: {error}")
    if _is_out_of_memory(error):
        return UserError(_out_of_memory(stage, config, error))
    traceback.print_exception(error)
    what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Bug(
        f"{stage}: {what}: a bug of geomim's or of a package it uses; the traceback stands above; please report it"
    )


def exit_code(told: Exception) -> int:
    """2 for a mistake of the user's, else 1."""
    return 2 if isinstance(told, UserError) and not isinstance(told, DataError) else 1


def _is_out_of_memory(error: Exception) -> bool:
    # Not by torch's own class for it: that is of GPUs alone, and a stage without torch has not imported it.
    torchs = isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    return torchs or isinstance(error, MemoryError)


def _out_of_memory(stage: str, config: Settings | None, error: Exception) -> str:
    """The user's sentence, with what the stage's config offers."""
    fields = type(config).model_fields if config else {}
    # On a CPU torch puts its own source line first, and a rank its traceback.
    what = " ".join(str(error).rpartition("Allocator: ")[2].split())[:160] or "no memory left"
    remedies = [f"set {stage}.{field} {how}" for field, how in LESS_MEMORY.items() if field in fields]
    return f"{stage}: {what}: {', or '.join([*remedies, 'make networks, images and grids smaller'])}"


def _kill_group(child: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the whole group has ended
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


if __name__ == "__main__":
    from tasks.engine import child  # not this module's second self, whose exceptions nobody else raises

    sys.exit(child.main())
