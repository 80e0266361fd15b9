import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from small_tasks import Part, Rates, SmallTask
from training.checkpoint import Checkpoint
from training.log import MetricLog
from training.loop import TrainSpec, train
from training.order import generator_at, positions_at, sample_at
from training.schedule import Schedule

ROOT = Path(__file__).parents[2]

# A run of 12 steps with dropout (torch's generator) and noise (the step's own): argv = folder, step to die at or -1.
RUN = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    import torch
    from training.checkpoint import Checkpoint
    from small_tasks import Part, Rates, SmallTask
    from training.loop import TrainSpec, train
    from training.order import generator_at

    folder, fatal = Path(sys.argv[1]), int(sys.argv[2])
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), 0.1, fused=True)

    def load(step):
        return [Part((step, torch.from_numpy(generator_at(step, 5).normal(size=(6, 4))).float()), ["t"])]

    def losses(batch):
        if batch[0] == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"error": (model(batch[1]) - batch[1].sum(1, keepdim=True)).square().mean()}

    spec = TrainSpec("test", Rates(12, lambda s: 1 - s / 24), 1.0, seconds_between_saves=0)
    train(spec, SmallTask(load, losses), model, optimizer, Checkpoint(folder / "checkpoint.pt"), folder)
    torch.save(model.state_dict(), folder / "weights.pt")
""")


def batch_at(step, samples, batch_size, seed):
    return np.array([sample_at(position, samples, seed) for position in positions_at(step, batch_size)])


def run(folder: Path, fatal: int) -> int:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", RUN, str(folder), str(fatal)], env=environment, cwd=ROOT).returncode


def lines(folder: Path) -> list[dict]:
    timing = ("seconds", "seconds_waiting")
    kept = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in timing} for line in kept]


def test_a_killed_run_goes_on_to_the_same_weights_and_log(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(whole, -1) == 0
    assert run(killed, 7) == -signal.SIGKILL
    with open(killed / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "lo')  # what a kill in the middle of a write leaves
    assert run(killed, -1) == 0
    one, other = (torch.load(folder / "weights.pt") for folder in (whole, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert lines(whole) == lines(killed)
    assert [line["step"] for line in lines(whole)] == list(range(12))
    assert lines(whole)[6]["rate"] == pytest.approx(0.1 * (1 - 6 / 24))


def simple(tmp_path, steps, losses=lambda step: 1.0, model=None, optimizer=None):
    model = model or torch.nn.Linear(1, 1)
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 1.0, fused=True)
    task = SmallTask(
        lambda step: [Part(step, [f"token{step}"])],
        lambda step: {"a": model(torch.ones(1, 1)).sum() * losses(step)},
    )
    spec = TrainSpec("test", Rates(steps, lambda step: 0.5), 1.0)
    train(spec, task, model, optimizer, Checkpoint(tmp_path / "checkpoint.pt"), tmp_path)
    return model, optimizer


def test_micro_batches_add_up_to_the_batch(tmp_path):
    """The same weights and losses, to rounding; and the samples of a bad loss are those of its micro-batch."""
    batches = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))

    def trained(folder, parts, batches=batches):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)
        task = SmallTask(
            lambda step: [
                Part(part, [f"token{step}-{len(part)}-{part.isnan().any()}"]) for part in batches[step].chunk(parts)
            ],
            lambda part: {"a": model(part).square().mean(), "b": part.mean()},
        )
        optimizer = torch.optim.AdamW(model.parameters(), 0.1, fused=True)
        train(TrainSpec("test", Rates(3), 1.0), task, model, optimizer, Checkpoint(folder / "checkpoint.pt"), folder)
        return torch.cat([model.weight.flatten(), model.bias])

    torch.testing.assert_close(trained(tmp_path / "one", 1), trained(tmp_path / "three", 3))
    for one, three in zip(lines(tmp_path / "one"), lines(tmp_path / "three"), strict=True):
        assert one == pytest.approx(three, rel=1e-5)
    batches[1, 4] = math.nan
    trained(tmp_path / "bad", 3)
    (line,) = (line for line in lines(tmp_path / "bad") if "skipped" in line)
    assert (line["step"], line["samples"]) == (1, ["token1-2-True"])
    assert line["skipped"].startswith("loss is nan, a is nan, b is nan")


def test_marks_are_logged_once_and_the_last_is_returned(tmp_path):
    """Every second step and the last; a finished run says again what it said at its end."""
    seen = []

    def run_to_5(interrupted=False):
        model = torch.nn.Linear(1, 1)

        def evaluate(steps):
            if interrupted and steps == 4:
                raise KeyboardInterrupt
            seen.append(steps)
            return {"held_out": float(steps)}

        spec = TrainSpec("test", Rates(5, lambda step: 0.5), 1.0, evaluate_every=2, seconds_between_saves=0.0)
        task = SmallTask(
            lambda step: [Part(step)], lambda step: {"a": model(torch.ones(1, 1)).sum()}, evaluate=evaluate
        )
        optimizer = torch.optim.SGD(model.parameters(), 1.0, fused=True)
        return train(spec, task, model, optimizer, Checkpoint(tmp_path / "checkpoint.pt"), tmp_path)

    with pytest.raises(KeyboardInterrupt):
        run_to_5(interrupted=True)
    assert run_to_5() == {"held_out": 5.0}
    assert run_to_5() == {"held_out": 5.0}
    assert seen == [2, 4, 5]
    assert [(line["step"], line["held_out"]) for line in lines(tmp_path) if "held_out" in line] == [
        (1, 2),
        (3, 4),
        (4, 5),
    ]
    assert [line["step"] for line in lines(tmp_path) if "loss" in line] == [0, 1, 2, 3, 4]
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2  # one a run that had something to do


def test_training_in_two_calls_keeps_the_base_rate(tmp_path):
    model, optimizer = simple(tmp_path, 2)
    simple(tmp_path, 4, model=model, optimizer=optimizer)
    assert [line["rate"] for line in lines(tmp_path)] == [0.5] * 4


def test_a_checkpoint_that_is_not_there_starts_at_zero(tmp_path):
    model = torch.nn.Linear(1, 1)
    assert Checkpoint(tmp_path / "none.pt").load(model, torch.optim.SGD(model.parameters(), 1.0, fused=True)) == (0, {})


def test_the_log_drops_what_comes_after_the_resumed_step(tmp_path):
    with MetricLog(tmp_path) as log:
        for step in range(4):
            log.write(step, {"loss": step})
    with MetricLog(tmp_path, steps_done=2) as log:
        log.write(2, {"loss": 20})
    kept = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kept == [0, 1, 20]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 3))
def test_every_epoch_holds_every_sample_once(count, batch_size, seed):
    samples = np.arange(100, 100 + count)
    steps = -(-3 * count // batch_size)
    order = np.concatenate([batch_at(step, samples, batch_size, seed) for step in range(steps)])
    for epoch in range(3):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == samples.tolist()


def test_epochs_and_steps_differ_in_their_randomness():
    samples = np.arange(50)
    assert (batch_at(0, samples, 50, 0) != batch_at(1, samples, 50, 0)).any()
    assert (batch_at(0, samples, 50, 0) != batch_at(0, samples, 50, 1)).any()
    assert generator_at(3, 0).random() == generator_at(3, 0).random() != generator_at(4, 0).random()


def test_the_rate_warms_up_and_then_falls_along_a_cosine():
    factors = [Schedule(110, 10, 0.1, 0.01).factor(step) for step in range(111)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10] == pytest.approx(1)
    assert factors[60] == pytest.approx(0.505)
    assert factors[110] == pytest.approx(0.01)
    assert np.diff(factors[:11]).min() > 0 > np.diff(factors[10:]).max()
    assert [Schedule(9, 0, floor=1.0).factor(s) for s in range(9)] == [1.0] * 9
