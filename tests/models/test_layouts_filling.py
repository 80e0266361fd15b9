"""Strict filling: all or nothing, and nothing in silence."""

import re

import pytest
import torch
from torch import nn

from models.layouts import Checkpoint, WeightsMismatch
from models.layouts.filling import fill, listed


def a_network(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def a_file(tensors: dict[str, torch.Tensor], **fields) -> Checkpoint:
    return Checkpoint("a test's", True, tensors, {name: f"file.{name}" for name in tensors}, ["beside"], **fields)


def sizes(tensors: dict[str, torch.Tensor]) -> dict[str, int]:
    return {name: len(tensors[name]) for name in ("0.weight", "net.0.weight") if name in tensors}


def failure(network: nn.Module, checkpoint: Checkpoint, **fields) -> str:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(WeightsMismatch) as caught:
        fill(network, checkpoint, sizes, **fields)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    return str(caught.value)


def test_everything_is_filled_and_said():
    source, target = a_network(), a_network()
    filled = fill(target, a_file(source.state_dict()), sizes)
    assert all(torch.equal(tensor, target.state_dict()[name]) for name, tensor in source.state_dict().items())
    assert (filled.filled, filled.left, filled.ignored) == (list(target.state_dict()), [], ["beside"])
    assert not filled.resized


def test_below_a_prefix():
    source, target = a_network(), a_network()
    state = {f"net.{name}": tensor for name, tensor in source.state_dict().items()} | {"head.0": torch.zeros(1)}
    filled = fill(target, a_file(state), sizes, "net.")
    assert torch.equal(target[0].weight, source[0].weight)
    assert filled.ignored == ["beside", "file.head.0"]
    assert "unexpected: file.head.0" in failure(target, a_file(source.state_dict() | {"head.0": torch.zeros(1)}))


def test_counts_of_batches_and_what_may_lack_stay():
    state = a_network().state_dict()
    del state["1.num_batches_tracked"], state["1.bias"]
    target = a_network()
    assert failure(target, a_file(state)) == "missing: 1.bias"
    assert failure(target, a_file(state, to_file=lambda name: f"theirs.{name}")) == "missing: theirs.1.bias"
    assert fill(target, a_file(state), sizes, may_lack=re.compile("1.bias")).left == ["1.bias"]


def test_every_fault_at_once():
    state = a_network(4).state_dict()
    del state["1.bias"]
    state["0.bias"] = torch.tensor([0, 0, torch.inf])
    text = failure(a_network(3), a_file(state | {"extra": torch.zeros(1)}, unknown=["stray"]))
    assert text == (
        "0.weight is 4 in the file, 3 in the config; missing: 1.bias; unexpected: file.extra, stray; "
        "of another shape: file.0.weight (4, 2) for (3, 2), file.1.running_mean (4,) for (3,), "
        "file.1.running_var (4,) for (3,), file.1.weight (4,) for (3,); with values that are not finite: file.0.bias"
    )


def test_nothing_is_resized_unless_the_caller_says_how():
    state = a_network().state_dict() | {"1.bias": torch.ones(5)}
    assert failure(a_network(), a_file(state)) == "of another shape: file.1.bias (5,) for (3,)"

    def cut(name, tensor, shape):
        return (tensor, "") if tensor.shape == shape else (tensor[: shape[0]], f"{name} to {shape[0]}")

    target = a_network()
    assert dict(fill(target, a_file(state), sizes, resize=cut).resized) == {"1.bias to 3": 1}
    assert target[1].bias.tolist() == [1, 1, 1]


def test_long_lists_are_cut():
    assert listed("missing", ["b", "a"]) == "missing: a, b"
    text = listed("missing", [f"{n:02}" for n in range(13)])
    assert text == "missing: " + ", ".join(f"{n:02}" for n in range(12)) + ", ... (13 in all)"
