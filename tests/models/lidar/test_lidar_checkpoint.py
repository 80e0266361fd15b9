import pytest
import torch

from models.lidar.checkpoint import PREFIXES, CheckpointMismatch, load_encoder
from models.lidar.encoder import SparseEncoder


def encoder(seed: int) -> SparseEncoder:
    torch.manual_seed(seed)
    return SparseEncoder((64, 64, 41), widths=(4, 6, 8, 8), out_width=8, blocks=1)


def as_file(source: SparseEncoder, prefix: str, spconv2: bool) -> dict[str, torch.Tensor]:
    turned = {k: t.permute(4, 0, 1, 2, 3) if spconv2 and t.ndim == 5 else t for k, t in source.state_dict().items()}
    return {prefix + k: t for k, t in turned.items()} | {"head.weight": torch.zeros(1)}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("spconv2", [False, True])
def test_layouts(prefix, spconv2):
    source, target = encoder(0), encoder(1)
    unused = load_encoder(target, as_file(source, prefix, spconv2))
    assert unused == ["head.weight"]
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor), name


def test_every_fault_is_listed_and_nothing_is_changed():
    source, target = encoder(0), encoder(1)
    before = {k: t.clone() for k, t in target.state_dict().items()}
    given = as_file(source, "pts_middle_encoder.", False)
    del given["pts_middle_encoder.conv_out.1.bias"]
    given["pts_middle_encoder.extra"] = torch.zeros(1)
    given["pts_middle_encoder.conv_out.1.weight"] = torch.zeros(3)
    given["pts_middle_encoder.conv_input.1.bias"] = torch.full((4,), torch.nan)
    with pytest.raises(CheckpointMismatch) as caught:
        load_encoder(target, given)
    text = str(caught.value)
    for part in (
        "missing: pts_middle_encoder.conv_out.1.bias",
        "unexpected: pts_middle_encoder.extra",
        "(3,)",
        "not finite",
    ):
        assert part in text
    assert all(torch.equal(target.state_dict()[k], t) for k, t in before.items())


def test_a_file_without_an_encoder():
    with pytest.raises(CheckpointMismatch, match="no sparse encoder"):
        load_encoder(encoder(0), {"backbone.conv1.weight": torch.zeros(1)})
    with pytest.raises(CheckpointMismatch, match="neither"):
        load_encoder(encoder(0), {"encoder.conv_input.0.weight": torch.zeros(3, 3, 3, 7, 4)})
