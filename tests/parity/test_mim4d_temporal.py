"""The temporal decoder's check against a file of other sizes than the public one."""

import json

import numpy as np
import pytest
import torch

import conformance
from models.layouts.mim4d import TEMPORAL, released_name
from models.mim4d.temporal import TemporalDecoder, TemporalSpec


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_a_temporal_decoder_of_other_sizes(tmp_path, bf16):
    """In the original's format, with none of the stored file's sizes; the numbers are our own."""
    spec = TemporalSpec(
        (7, 5),
        channels=3,
        heights=4,
        frames=3,
        width=36,
        reduction=3,
        short_heads=3,
        layers=1,
        short_ffn=20,
        long_ffn=8,
    )
    torch.manual_seed(0)
    net, volumes, weight = TemporalDecoder(spec), torch.randn(1, 3, 3, 4, 7, 5), torch.randn(1, 3, 4, 7, 5)
    for name, parameter in net.named_parameters():
        if "attention" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    loss = (net(volumes) * weight).mean()
    loss.backward()
    state = {released_name(TEMPORAL + name): parameter for name, parameter in net.named_parameters()}

    def branch(heads: int, frames: int) -> dict:
        attention = {"num_heads": heads, "num_bev_queue": frames}
        return {"num_layers": 1, "transformerlayers": {"attn_cfgs": [attention]}}

    config = {"bev_h": 7, "bev_w": 5, "num_adj": 3, "embed_dims": 36, "reduction": 3}
    config |= {"decoder_short": branch(3, 1), "decoder_long": branch(2, 3)}
    motion = torch.eye(4).repeat(2, 1, 1)
    motion[1, :2, 3] = torch.tensor([1.0, -2.0])
    moved = torch.zeros(1, 3, 4, 7, 5)
    moved[..., 2:, :-1] = volumes[:, 0, ..., :-2, 1:]  # the key frame stands at (1, -2) in the other
    tensors = {
        **{f"sd/{name}": value for name, value in state.items()},
        **{f"gradnorm/{name}": value.grad.norm() for name, value in state.items()},
        **{f"inputs/volume{i}": volumes[:, i] for i in range(3)},
        "out/volume": net(volumes),
        "grad/weight": weight,
        "grad/loss": loss,
        "shift/lidar2ego": torch.eye(4).repeat(2, 1, 1),
        "shift/ego2global": motion.flip(0),
        "shift/volume_key": moved,
    }
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    np.savez(tmp_path / "other.npz", cfg=np.array(json.dumps(config)), **arrays)
    results = conformance.check_file(tmp_path / "other.npz", bf16)
    assert [(r.output, r.status, r.detail) for r in results if r.status != "OK"] == []
    assert {r.output for r in results} == {"out/volume", "grad/loss", "gradnorm/*", "shift/volume_key"}
