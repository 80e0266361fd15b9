"""A step of training as the device is told it: in one go, and told of while the next one is under way."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from small_tasks import Part, Rates, SmallTask
from training.checkpoint import Checkpoint
from training.ema import Ema
from training.loop import TrainSpec, train
from training.step import Stepper

# What gives the host a number that a GPU has yet to compute, or a shape that depends on one.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "item")


class Asked(TorchDispatchMode):
    """While the context lasts: the operators that wait."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(func.overloadpacket.__name__.startswith(name) for name in WAITS):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def stepper() -> tuple[Stepper, nn.Module, Ema]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).train()
    ema = Ema(model, 0.9)
    task = SmallTask(lambda step: [], lambda x: {"error": (model(x) - 1).square().mean()})
    return Stepper(task, model, torch.optim.AdamW(model.parameters(), 0.1, fused=True), 1.0, ema), model, ema


def test_a_step_asks_for_no_number():
    """Neither a good nor a bad one, with all that follows: skipping, averages, what is to be logged."""
    taker, _, _ = stepper()
    good, bad = [Part(torch.randn(6, 4), ["a"])], [Part(torch.full((6, 4), torch.nan), ["b"])]
    with Asked() as asked:
        taken = [taker.take(step, batches) for step, batches in enumerate([good, bad, good])]
    assert asked.names == []
    for each in taken:
        each.wait()
    assert [bool(each.problem) for each in taken] == [False, True, False]
    assert taken[1].suspects() == ["b"]
    with Asked() as asked:
        torch.ones(2).sum().item()
    assert asked.names, "the test would not see a wait"


def test_what_rank_0_tells_comes_with_the_numbers():
    taker, _, _ = stepper()
    for due in (True, False):
        taken = taker.take(0, [Part(torch.randn(6, 4), ["a"])], due)
        taken.wait()
        assert taken.due is due
        assert taken.values.keys() == {"loss", "error", "gradient_norm"}


def test_to_look_at_a_problem_teaches_nothing():
    taker, model, ema = stepper()
    before = copy.deepcopy((model.state_dict(), ema.model.state_dict()))
    assert taker.problem_of([Part(torch.randn(6, 4), ["a"])]) == ""
    assert "error is nan" in taker.problem_of([Part(torch.full((6, 4), torch.nan), ["a"])])
    for now, then in zip((model.state_dict(), ema.model.state_dict()), before):
        assert all(torch.equal(now[name], then[name]) for name in now)


def test_an_optimiser_that_cannot_leave_out_a_step_is_refused():
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="SGD has to be fused"):
        Stepper(SmallTask(lambda step: [], lambda x: {}), model, torch.optim.SGD(model.parameters(), 0.1), 1.0)


def test_a_step_is_told_while_the_next_one_is_under_way(tmp_path):
    """But for steps after which something is measured, which come with all before them."""
    model, told = nn.Linear(1, 1), {}

    def losses(step: int) -> dict[str, torch.Tensor]:
        told[step] = steps_in(tmp_path)
        return {"a": model(torch.ones(1, 1)).sum()}

    task = SmallTask(lambda step: [Part(step, ["t"])], losses, lambda steps: {"held_out": 1.0})
    optimizer, checkpoint = torch.optim.AdamW(model.parameters(), fused=True), Checkpoint(tmp_path / "checkpoint.pt")
    train(TrainSpec("test", Rates(7), 1.0, evaluate_every=4), task, model, optimizer, checkpoint, tmp_path)
    assert told == {0: [], 1: [], 2: [0], 3: [0, 1], 4: [0, 1, 2, 3, 3], 5: [0, 1, 2, 3, 3], 6: [0, 1, 2, 3, 3, 4]}
    assert steps_in(tmp_path) == [0, 1, 2, 3, 3, 4, 5, 6, 6]


def steps_in(folder) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
