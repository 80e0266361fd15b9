import torch
from torch import nn

from models.uncompiled import uncompiled

SEEN = []


class Network(nn.Module):
    def forward(self, x):
        return self.left_alone(x + 1) * 2

    @uncompiled
    def left_alone(self, x):
        """A sum."""
        SEEN.append((torch.compiler.is_compiling(), type(x)))
        return x.sum()


def test_a_compiler_leaves_it_alone():
    network, x = Network(), torch.arange(3.0)
    torch.compiler.reset()
    SEEN.clear()
    compiled = torch.compile(network, backend="eager")
    for _ in range(2):
        assert compiled(x) == network(x) == 12
    assert [(False, torch.Tensor)] * 4 == SEEN


def test_it_is_the_same_function_to_a_reader():
    assert Network.left_alone.__doc__ == "A sum."
