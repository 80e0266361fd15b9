"""Checkpoints that were damaged, cut off by a kill or by a full disk: the one before serves, or step 0."""

import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from damages import cut, damage, emptied, flipped, one_byte_short, zeros
from rank_jobs import loaded_step, loaded_steps
from small_tasks import Part, Rates, SmallTask
from training.checkpoint import Checkpoint
from training.loop import TrainSpec, train
from training.ranks import run_ranks

ROOT = Path(__file__).parents[2]
STEPS = 6


class Interrupted(Exception):
    pass


def trained(folder: Path, until: int | None = None) -> torch.Tensor:
    """The weights of a run that saves after each step but its first; it is interrupted when `until` steps are saved."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))

    def after_save(done: int) -> None:
        if done == until:
            raise Interrupted

    task = SmallTask(
        lambda step: [Part(torch.randn(6, 4, generator=torch.Generator().manual_seed(step)), ["token"])],
        lambda batch: {"error": (model(batch) - 1).square().mean()},
    )
    spec = TrainSpec("test", Rates(STEPS), 1.0, seconds_between_saves=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1, fused=True)
    checkpoint = Checkpoint(folder / ".checkpoint.pt")
    train(spec, task, model, optimizer, checkpoint, folder, after_save=after_save)
    return torch.cat([parameter.flatten() for parameter in model.parameters()])


DAMAGES = [emptied, cut, one_byte_short, zeros, flipped]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_told_and_the_one_before_serves(tmp_path, how, capsys):
    whole = trained(tmp_path / "whole")
    with pytest.raises(Interrupted):
        trained(tmp_path, until=4)
    file = tmp_path / ".checkpoint.pt"
    damage(file, how)
    assert torch.equal(trained(tmp_path), whole)
    now = "training goes back to step 3, where the checkpoint before it was written"
    assert f"{file}: not as written, so removed; {now}" in capsys.readouterr().err


@pytest.mark.parametrize("how", DAMAGES)
def test_two_damaged_checkpoints_are_told_and_training_begins_again(tmp_path, how, capsys):
    whole = trained(tmp_path / "whole")
    with pytest.raises(Interrupted):
        trained(tmp_path, until=4)
    for file in (tmp_path / ".checkpoint.pt", tmp_path / ".checkpoint.pt.before"):
        damage(file, how)
    assert torch.equal(trained(tmp_path), whole)
    told = ".checkpoint.pt.before: not as written, so removed; training begins at step 0 again"
    assert told in capsys.readouterr().err


def test_every_flipped_bit_is_seen(tmp_path):
    """Of all places in the file, a hundred."""
    with pytest.raises(Interrupted):
        trained(tmp_path, until=3)
    path, generator = tmp_path / ".checkpoint.pt", random.Random(1)
    data = path.read_bytes()
    for _ in range(100):
        place, bit = generator.randrange(len(data)), 1 << generator.randrange(8)
        path.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
        assert step_of(path) == 2


def step_of(path: Path) -> int:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    return Checkpoint(path).load(model, torch.optim.AdamW(model.parameters(), 0.1, fused=True))[0]


def test_after_going_back_the_good_one_is_not_lost_again(tmp_path):
    """The damaged file is gone, so that the next save does not put it in the good one's place."""
    with pytest.raises(Interrupted):
        trained(tmp_path, until=4)
    damage(tmp_path / ".checkpoint.pt", cut)
    with pytest.raises(Interrupted):
        trained(tmp_path, until=5)
    damage(tmp_path / ".checkpoint.pt", cut)
    assert step_of(tmp_path / ".checkpoint.pt") == 3


@pytest.mark.parametrize("last_is", ["in its place", "away", "damaged"])
def test_a_kill_at_the_end_of_a_save(tmp_path, last_is):
    """The new one is whole and not yet in its place: it serves, and the one before it is the one before."""
    whole = trained(tmp_path / "whole")
    with pytest.raises(Interrupted):
        trained(tmp_path, until=4)
    path = tmp_path / ".checkpoint.pt"
    path.rename(new := tmp_path / ".checkpoint.pt.new")
    before = tmp_path / ".checkpoint.pt.before"
    if last_is != "away":
        before.rename(path)
    if last_is == "damaged":
        damage(path, flipped)
    assert step_of(path) == 4
    assert not new.exists()
    if last_is != "damaged":
        damage(path, flipped)
        assert step_of(path) == 3
    assert torch.equal(trained(tmp_path), whole)


@contextmanager
def files_of_at_most(size: int):
    """Writing more ends as on a full disk: OSError, but with another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_former_checkpoints(tmp_path):
    whole = trained(tmp_path / "whole")
    with pytest.raises(Interrupted):
        trained(tmp_path, until=3)
    names = (".checkpoint.pt", ".checkpoint.pt.before")
    kept = [(tmp_path / name).read_bytes() for name in names]
    with files_of_at_most(len(kept[0]) // 2), pytest.raises(OSError, match="too large"):
        trained(tmp_path)
    assert [(tmp_path / name).read_bytes() for name in names] == kept
    assert torch.equal(trained(tmp_path), whole)


@pytest.mark.timeout(300)
def test_a_full_disk_is_told_through_ranks(tmp_path):
    with files_of_at_most(10_000), pytest.raises(OSError, match="too large"):
        run_ranks(2, torch.device("cpu"), loaded_step, tmp_path, 100_000)


@pytest.mark.usefixtures("forked_ranks")
@pytest.mark.timeout(300)
def test_ranks_go_back_together(tmp_path):
    assert run_ranks(2, torch.device("cpu"), loaded_steps, tmp_path, flipped) == [[0, 0], [2, 2], [1, 1]]


# A run for each line of input, one after the other: forks of a process that has imported what takes seconds.
SAVES = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    import torch
    import torch._dynamo  # as the first optimizer would
    from training.checkpoint import Checkpoint

    def save() -> None:
        model = torch.nn.Linear(700, 700)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        checkpoint = Checkpoint(Path(sys.argv[1]))
        done, _ = checkpoint.load(model, optimizer)
        print(os.getpid(), flush=True)
        print(done, flush=True)
        for step in range(done + 1, 10**6):
            torch.nn.init.constant_(model.weight, step)
            checkpoint.save(step, model, optimizer)
            print(step, flush=True)

    for _ in sys.stdin:
        if (run := os.fork()) == 0:
            save()
        os.waitpid(run, 0)
        print("over", flush=True)
""")


def test_kills_while_saving(tmp_path):
    """Whatever instant it is killed at, a run goes on from what it last said it had written, or from a later state."""
    path, written, instants = tmp_path / ".checkpoint.pt", 0, random.Random(0)
    command = [sys.executable, "-c", SAVES, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, bufsize=1, **pipes) as process:
        for _ in range(5):
            process.stdin.write("run\n")
            saving = int(process.stdout.readline())
            assert int(process.stdout.readline()) >= written
            written = [int(process.stdout.readline()) for _ in range(2)][-1]  # however slow a busy machine is
            time.sleep(instants.uniform(0, 0.1))
            os.kill(saving, signal.SIGKILL)
            written = max([written, *map(int, iter(lambda: process.stdout.readline().strip(), "over"))])
    assert written > 5
    model = torch.nn.Linear(700, 700)
    done, _ = Checkpoint(path).load(model, torch.optim.SGD(model.parameters(), 0.1))
    assert done >= written
    assert (model.weight == done).all()
    assert {p.name for p in tmp_path.iterdir()} <= {path.name, f"{path.name}.before"}
