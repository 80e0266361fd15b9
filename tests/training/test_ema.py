import copy
import math

import torch
from torch import nn

from training.ema import Ema


def test_the_average_follows_weights_and_statistics_and_copies_counts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    ema = Ema(model, 0.9)
    expected = {name: value.clone().double() for name, value in model.state_dict().items()}
    for step in range(3):
        model(torch.randn(4, 2))
        with torch.no_grad():
            for p in model.parameters():
                p += torch.randn_like(p)
        ema.update(model, step, torch.tensor(True))
        d = 0.9 * (1 - math.exp(-(step + 1) / 2000))
        expected = {name: d * old + (1 - d) * model.state_dict()[name] for name, old in expected.items()}
    for name, value in ema.model.state_dict().items():
        if name == "1.num_batches_tracked":
            assert value == 3
        else:
            torch.testing.assert_close(value, expected[name].float())
    assert not ema.model.training
    assert not any(p.requires_grad for p in ema.model.parameters())


def test_a_long_run_averages_over_many_steps_and_the_model_is_left_alone():
    model = nn.Linear(1, 1, bias=False)
    ema = Ema(model, 0.999)
    before = copy.deepcopy(model.state_dict())
    ema.model.weight.data.zero_()
    ema.update(model, 10**6, torch.tensor(True))
    torch.testing.assert_close(ema.model.weight, model.weight * 0.001)
    assert torch.equal(model.weight, before["weight"])
