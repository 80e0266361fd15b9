import pytest
import torch
from torch import nn

from models.geomim.blocks import CrossViewBlock
from models.geomim.decoder import Decoder, DecoderSpec
from models.geomim.model import Fusion
from models.initialise import init_linear, kaiming_init
from small_swin import small_swin


def test_kaiming_init_leaves_unit_gain():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(64, 64, 3, padding=1)
    kaiming_init(conv)
    assert conv.bias.abs().max() == 0
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


def test_linear_layers_begin_as_timms_and_mmdets():
    layer = nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 100, bias=False))
    init_linear(layer)
    for weight in (layer[0].weight, layer[1].weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert weight.mean().item() == pytest.approx(0, abs=0.0005)
    assert not layer[0].bias.any()


BUILDERS = {
    "swin": lambda: small_swin(embed_dim=32),
    "decoder": lambda: Decoder(16, DecoderSpec(64, 2)),
    "fusion": lambda: Fusion(64, 2),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_transformers_begin_so(name):
    """But for what must be the identity at first."""
    torch.manual_seed(0)
    network = BUILDERS[name]()
    crosses = [block for block in network.modules() if isinstance(block, CrossViewBlock)]
    zero = [layer for block in crosses for layer in (block.attn.proj, block.mlp.fc2)]
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert len(linear) > 4
    for layer in linear:
        assert layer.bias is None or not layer.bias.any()
        assert layer.weight.std().item() == (0 if layer in zero else pytest.approx(0.02, rel=0.15))
