"""What a config's words for precision and speed make torch do."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from models.layers import Mlp
from training.speed import autocast, products, trained

CPU = torch.device("cpu")


def how(**given):
    return SimpleNamespace(**{"precision": "fp32", "compile": False, "checkpointing": "none"} | given)


def test_products_are_as_asked_and_then_as_they_were():
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    try:
        for precision, products_are, convolutions_are in (("tf32", "high", True), ("fp32", "highest", False)):
            with products(precision):
                assert torch.get_float32_matmul_precision() == products_are
                assert torch.backends.cudnn.allow_tf32 is convolutions_are
            assert torch.get_float32_matmul_precision() == "medium"
            assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


def test_only_bf16_casts():
    x, layer = torch.randn(2, 3), nn.Linear(3, 3)
    for precision, kind in (("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(precision, CPU):
            assert layer(x).dtype == kind


def test_what_is_made_again_is_told_to_every_part():
    network = nn.Sequential(Mlp(3, 6), nn.Sequential(Mlp(3, 6)))
    assert trained(network, how(checkpointing="block")) is network
    assert [module.checkpointing for module in network.modules() if isinstance(module, Mlp)] == ["block"] * 2


def test_what_is_compiled_has_the_networks_own_weights(monkeypatch):
    """And must be one graph: a break is an error, not a slower step."""
    torch.compiler.reset()
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **kwargs: compile_(network, backend="eager", **kwargs))
    network = nn.Linear(3, 2)
    compiled = trained(network, how(compile=True))
    assert compiled is not network
    x = torch.randn(4, 3)
    assert torch.equal(compiled(x), network(x))
    compiled(x).sum().backward()
    assert torch.equal(network.bias.grad, torch.full((2,), 4.0))

    class Broken(nn.Linear):
        def forward(self, x):
            print("a break")
            return super().forward(x)

    with pytest.raises(torch._dynamo.exc.Unsupported):
        trained(Broken(3, 2), how(compile=True))(x)
