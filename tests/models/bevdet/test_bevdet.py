import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.bevdet.detector import BevDet, Cameras
from models.bevdet.encoder import ResidualBlock
from models.bevdet.layout import bevdet_from_public
from models.bevdet.necks import FpnLss
from models.depth_bins import DepthBins
from models.layouts import without_prefix
from models.lift_splat import BevGrid
from models.swin import Swin

ORACLE = Path(__file__).parents[4] / "shared" / "oracles" / "bevdet4d.npz"
# Upstream feeds RGB where BGR is meant: channel 0 is blue with red's statistics.
MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])


@pytest.fixture(scope="module")
def oracle():
    if not ORACLE.is_file():
        pytest.skip("shared/oracles is not here")
    arrays = np.load(ORACLE)
    return {name: arrays[name] for name in arrays.files}


def detector(p: dict) -> BevDet:
    backbone = Swin(p["embed"], tuple(p["depths"]), tuple(p["heads"]), (16, 16, 16, 8))
    span = (-p["rng"], p["rng"])
    net = BevDet(
        backbone,
        nn.Identity(),
        BevGrid(span, span, (-5, 3), p["step"]),
        DepthBins(*p["depth"]),
        tuple(p["size"]),
        image_out=p["neck"],
        context=p["C"],
        bev_widths=tuple(p["enc"]),
        bev_out=p["bevout"],
        truncate_cells=True,
    )
    net.bev_encoder.layers[0][0] = ResidualBlock(2 * p["C"], p["enc"][0], 2, project=True)  # 4D sees two frames
    return net.eval()


def test_the_parts_compute_what_bevdet4d_computes(oracle):
    """Weights, images and matrices of the original code through our parts, chained as BEVDet4D chains them."""
    p = json.loads(str(oracle["cfg"]))["p"]
    state = {k.removeprefix("sd/"): torch.from_numpy(np.array(v)) for k, v in oracle.items() if k.startswith("sd/")}
    net = detector(p)
    ours = {k: v for k, v in bevdet_from_public(state).items() if not k.startswith("head.")}
    assert set(net.state_dict()) == set(ours)
    net.load_state_dict(ours)
    pre = nn.Sequential(ResidualBlock(16, 16, 1, project=True), ResidualBlock(16, 16)).eval()
    pre.load_state_dict({k.removeprefix("layers.0."): v for k, v in without_prefix(state, "pre_process_net.").items()})

    def tensor(name):
        return torch.from_numpy(oracle[name])

    images = (tensor("inputs/img_u8")[0].flip(-1).float() - MEAN) / STD
    images = images.permute(0, 3, 1, 2)[None].unflatten(1, (6, 2))  # camera-major: (1, 6 cameras, 2 frames, 3, H, W)
    maps = []
    with torch.no_grad():
        for frame in (0, 1):
            rows = slice(6 * frame, 6 * frame + 6)  # the matrices are frame-major
            post = torch.eye(4).repeat(1, 6, 1, 1)
            post[..., :3, :3] = tensor("inputs/post_rots")[:, rows]
            post[..., :3, 3] = tensor("inputs/post_trans")[:, rows]
            bda = torch.eye(4)
            bda[:3, :3] = tensor("inputs/bda")[0]
            pose = bda @ tensor(f"prep/sensor2keyego{frame}").float()
            lifted, depth = net.lift(
                images[:, :, frame], Cameras(tensor("inputs/intrins")[:, rows].float(), post, pose)
            )
            maps.append(pre(lifted))
            if frame == 0:
                torch.testing.assert_close(depth[0, :4], tensor("inter/frame0_depth"), atol=2e-5, rtol=0)
                torch.testing.assert_close(lifted, tensor("inter/frame0_bev_pooled"), atol=1e-4, rtol=0)
                torch.testing.assert_close(maps[0], tensor("inter/frame0_bev_pre"), atol=1e-4, rtol=0)
        bev = net.encode(torch.cat(maps, 1))
    torch.testing.assert_close(bev, tensor("out/bev"), atol=2e-4, rtol=0)


@pytest.mark.parametrize(("scale", "extra"), [(2, 1), (4, 2)])
def test_the_neck_brings_both_maps_to_one_size(scale, extra):
    neck = FpnLss((3, 5), 4, scale, extra).eval()
    fine, coarse = torch.randn(2, 3, 8, 12), torch.randn(2, 5, 8 // scale, 12 // scale)
    out = neck(fine, coarse)
    assert out.shape == (2, 4, 8 * extra, 12 * extra)
    up = F.interpolate(coarse, scale_factor=scale, mode="bilinear", align_corners=True)
    torch.testing.assert_close(neck.up(coarse), up)
    assert not torch.allclose(neck(fine, coarse + 1), out)


def test_a_lone_object_lands_in_its_cell():
    """A camera at the origin that looks along +x, all depth in one bin: features stand in a line at that x."""
    grid, bins = BevGrid((-8, 8), (-8, 8), (-5, 3), 1.0), DepthBins(1.0, 9.0, 1.0)
    net = BevDet(
        Swin(8, (1, 1, 1, 1), (1, 1, 1, 1), (4, 4, 4, 2)), nn.Identity(), grid, bins, (64, 64), 8, 4, (8, 8, 8), 8
    )
    nn.init.zeros_(net.depth_net.weight)
    nn.init.constant_(net.depth_net.bias[: bins.count], -50.0)
    with torch.no_grad():
        net.depth_net.bias[3], net.depth_net.bias[bins.count :] = 50.0, 1.0  # bin 3 stands at 4 m
    intrinsics = torch.tensor([[64.0, 0, 32], [0, 64, 32], [0, 0, 1]])[None, None]
    looking_ahead = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])[None, None]
    cameras = Cameras(intrinsics, torch.eye(4)[None, None], looking_ahead)
    bev, depth = net.eval().lift(torch.randn(1, 1, 3, 64, 64), cameras)
    assert bev.shape == (1, 4, 16, 16)  # (B, C, Y, X)
    hit = bev[0, 0].abs() > 1e-4
    assert hit.any(0).nonzero().flatten().tolist() == [12]  # x in [4, 5)
    assert hit.any(1).nonzero().flatten().tolist() == [6, 7, 8, 10]  # y = -1.94, -0.63, 0.69, 2 m
    assert bev[0, 0].sum().item() == pytest.approx(16, abs=1e-3)  # 4 x 4 feature pixels with context 1
    torch.testing.assert_close(depth.sum(2), torch.ones(1, 1, 4, 4))
