import pytest
import torch

from models.initialise import kaiming_init


def test_kaiming_init_leaves_unit_gain():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(64, 64, 3, padding=1)
    kaiming_init(conv)
    assert conv.bias.abs().max() == 0
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
