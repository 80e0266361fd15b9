import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.bevdet.cameras import Cameras
from models.bevdet.detector import BevDet
from models.bevdet.necks import FpnLss
from models.depth_bins import DepthBins
from models.lift_splat import BevGrid
from models.swin import Swin


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
    intrinsics = torch.tensor([[64.0, 0, 32], [0, 64, 32], [0, 0, 1]])[None, None, None]
    looking_ahead = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])[None, None, None]
    cameras = Cameras(intrinsics, torch.eye(4)[None, None, None], looking_ahead, torch.eye(4)[None])
    (bev,), depth = net.eval().frame_maps(torch.randn(1, 1, 1, 3, 64, 64), cameras)
    assert bev.shape == (1, 4, 16, 16)  # (B, C, Y, X)
    hit = bev[0, 0].abs() > 1e-4
    assert hit.any(0).nonzero().flatten().tolist() == [12]  # x in [4, 5)
    assert hit.any(1).nonzero().flatten().tolist() == [6, 7, 8, 10]  # y = -1.94, -0.63, 0.69, 2 m
    assert bev[0, 0].sum().item() == pytest.approx(16, abs=1e-3)  # 4 x 4 feature pixels with context 1
    torch.testing.assert_close(depth.sum(2), torch.ones(1, 1, 4, 4))
