"""Steps that are not finite, in the real loop: what is left of them, what is told, and how a run goes on."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from rank_jobs import spoilt_training
from small_tasks import Part, Rates, SmallTask
from training.bad_steps import MOST_IN_A_ROW, NonFiniteLoss
from training.checkpoint import Checkpoint
from training.ema import Ema
from training.log import omissions
from training.loop import TrainSpec, train
from training.ranks import run_ranks

STEPS = 20


def batch_of(step: int) -> torch.Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(step))


class Run:
    """A training with batch norm, dropout and a running average, some of whose steps are spoilt."""

    def __init__(self, folder: Path, steps: int = STEPS):
        torch.manual_seed(0)
        self.folder, self.steps = folder, steps
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 0.01, fused=True)
        self.ema = Ema(self.model, 0.9)

    def train(
        self,
        spoil=lambda step: 1.0,
        until: int | None = None,
        rate=lambda step: 1.0,
        evaluate=lambda steps: {},
        skip_samples=(),
    ) -> None:
        """spoil: a factor on a step's input. until: a step whose batch interrupts."""

        def load(step: int) -> list[Part]:
            if step == until:
                raise KeyboardInterrupt
            return [Part(batch_of(step) * spoil(step), [f"token{step % 12}"])]

        spec = TrainSpec(
            "fit", Rates(self.steps, rate), 1.0, seconds_between_saves=0.0, skip_samples=tuple(skip_samples)
        )
        task = SmallTask(load, lambda x: {"error": (self.model(x) - 1).square().mean()}, evaluate)
        checkpoint = Checkpoint(self.folder / "checkpoint.pt")
        train(spec, task, self.model.train(), self.optimizer, checkpoint, self.folder, self.ema)

    def state(self) -> dict:
        average = {f"average {name}": value for name, value in self.ema.model.state_dict().items()}
        moments = {
            f"{place} {name}": value
            for place, values in self.optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        return self.model.state_dict() | average | moments

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
def test_a_bad_step_leaves_nothing_but_its_line(tmp_path, poison, capsys):
    """Weights, moments, batch norms and averages are those of a loop that is written down without the step.

    Of 1e30 nothing but a batch norm's running variance becomes infinite.
    """
    run = Run(tmp_path)
    run.train(lambda step: poison if step == 5 else 1.0)
    expected = Run(tmp_path / "expected")
    model, optimizer = expected.model.train(), expected.optimizer
    for step in range(STEPS):
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer.zero_grad()
        loss = (model(batch_of(step) * (poison if step == 5 else 1.0)) - 1).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if step == 5:
            model.load_state_dict(kept)
        else:
            optimizer.step()
            expected.ema.update(model, step, torch.tensor(True))
    assert all(value.isfinite().all() for value in run.state().values())
    assert same(run.state(), expected.state())
    (line,) = (line for line in run.lines() if line["step"] == 5)
    assert (line["samples"], line.keys()) == (["token5"], {"step", "skipped", "samples"})
    assert [line["step"] for line in run.lines()] == list(range(STEPS))
    assert omissions(tmp_path) == {"skipped_steps": 1}
    assert "fit: step 5 is skipped: " in capsys.readouterr().err


def test_an_interruption_around_a_bad_step_changes_nothing(tmp_path):
    whole = Run(tmp_path / "whole")
    whole.train(lambda step: math.nan if step in (5, 6) else 1.0)
    for stop in (5, 6, 7, 8):
        run = Run(tmp_path / str(stop))
        with pytest.raises(KeyboardInterrupt):
            run.train(lambda step: math.nan if step in (5, 6) else 1.0, until=stop)
        again = Run(tmp_path / str(stop))
        again.train(lambda step: math.nan if step in (5, 6) else 1.0)
        assert same(whole.state(), again.state())
        assert omissions(tmp_path / str(stop)) == {"skipped_steps": 2}


def test_many_in_a_row_end_the_run_and_without_their_samples_it_goes_on(tmp_path):
    """The checkpoint is that of the last finite step, and what the sentence names is enough to go on from it."""
    end = 4 + MOST_IN_A_ROW
    with pytest.raises(NonFiniteLoss) as raised:
        Run(tmp_path).train(lambda step: math.nan if step >= 4 else 1.0)
    tokens = [f"token{step}" for step in range(4, end)]
    problem = "loss is nan, error is nan, gradient_norm is nan, a batch norm's statistic is nan"
    assert str(raised.value) == (
        f"fit: steps 4 to {end - 1}: {problem}; samples {', '.join(tokens)}: look at their data, or go on without them "
        f"by --set 'fit.skip_samples={json.dumps(tokens)}'"
    )
    run = Run(tmp_path)
    assert Checkpoint(tmp_path / "checkpoint.pt").load(run.model, run.optimizer, run.ema)[0] == 4
    again = Run(tmp_path)
    again.train(skip_samples=tokens)  # the loader of this test has no samples to leave out
    whole = Run(tmp_path / "whole")
    whole.train()
    assert same(whole.state(), again.state())
    assert omissions(tmp_path) == {"skip_samples": sorted(tokens)}
    again.train()  # over: what was left out is still told
    assert omissions(tmp_path) == {"skip_samples": sorted(tokens)}


def test_samples_that_were_in_finite_steps_are_not_blamed(tmp_path):
    """Tokens come round every twelve steps: of the eight bad steps after the first round only one has a new sample."""

    def load(step: int) -> list[Part]:
        return [
            Part(batch_of(step) * (math.nan if step >= 13 else 1.0), ["new" if step == 15 else f"token{step % 12}"])
        ]

    run = Run(tmp_path, 30)
    task = SmallTask(load, lambda x: {"error": (run.model(x) - 1).square().mean()})
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt")
    with pytest.raises(NonFiniteLoss, match="; samples new: look at their data"):
        train(TrainSpec("fit", Rates(30), 1.0), task, run.model.train(), run.optimizer, checkpoint, tmp_path)


@pytest.mark.parametrize("steps", [STEPS, 7])
def test_a_training_that_diverged_is_called_so(tmp_path, steps):
    """Weights of 1e30 after the fourth step: no sample's fault, also where training is over before it is clear."""
    with pytest.raises(NonFiniteLoss, match=r"nor is the loss of step 4 finite any more: training has diverged; lower"):
        Run(tmp_path, steps).train(rate=lambda step: 1e32 if step == 4 else 1.0)


def test_a_bad_last_step_is_no_divergence(tmp_path):
    run = Run(tmp_path)
    run.train(lambda step: math.nan if step == STEPS - 1 else 1.0)
    assert all(value.isfinite().all() for value in run.state().values())
    assert omissions(tmp_path) == {"skipped_steps": 1}
    assert Checkpoint(tmp_path / "checkpoint.pt").load(run.model, run.optimizer, run.ema)[0] == STEPS


def test_a_short_training_of_bad_steps_alone_is_none(tmp_path):
    with pytest.raises(NonFiniteLoss, match=r"fit: steps 0 to 2: .*samples token0, token1, token2: "):
        Run(tmp_path, 3).train(lambda step: math.nan)


def test_marks_that_are_not_finite_are_told_and_left_out(tmp_path, capsys):
    run = Run(tmp_path, 3)
    run.train(evaluate=lambda steps: {"held_out_depth": math.nan, "held_out_zero": 1.0})
    assert run.lines()[-1] == {"step": 2, "held_out_zero": 1.0}
    assert "fit: after 3 steps held_out_depth is nan" in capsys.readouterr().err


@pytest.mark.usefixtures("forked_ranks")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("spoilt", ["loss", "gradient"])
def test_two_ranks_skip_alike(tmp_path, spoilt):
    """One rank's bad micro-batch: both skip the step, name its samples, and end with the same weights."""
    (one, other), lines = run_ranks(2, torch.device("cpu"), spoilt_training, tmp_path, spoilt)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(value.isfinite().all() for value in one.values())
    (line,) = (line for line in lines if "skipped" in line)
    samples = ["rank1-1"] if spoilt == "loss" else ["rank0-0", "rank0-1", "rank1-0", "rank1-1"]
    assert (line["step"], line["samples"]) == (3, samples)
    assert [line["step"] for line in lines] == list(range(6))


@pytest.mark.usefixtures("forked_ranks")
@pytest.mark.timeout(300)
def test_two_ranks_end_alike(tmp_path):
    with pytest.raises(NonFiniteLoss, match=r"fit: steps 0 to 5: .*; samples rank1-1: look at their data"):
        run_ranks(2, torch.device("cpu"), spoilt_training, tmp_path, "always")
