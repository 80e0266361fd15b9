"""The camera-aware depth net: what it is told, and what depends on it."""

import numpy as np
import pytest
import torch

from models.bevdet.depth_net import Aspp, CameraDepthNet
from small_detectors import rig


def test_the_27_numbers():
    cameras = rig(2, 2, 3)
    numbers = cameras.scene_vector(1)
    assert numbers.shape == (2, 3, 27)
    k, post = cameras.intrinsics[1, 1, 2], cameras.post_homography[1, 1, 2]
    scene, mounting = cameras.scene[1], cameras.mounting[1, 2]  # of the key frame
    wanted = [k[0, 0], k[1, 1], k[0, 2], k[1, 2]]
    wanted += [post[0, 0], post[0, 1], post[0, 3], post[1, 0], post[1, 1], post[1, 3]]
    wanted += [scene[0, 0], scene[0, 1], scene[1, 0], scene[1, 1], scene[2, 2], *mounting[:3].flatten()]
    assert numbers[1, 2].tolist() == torch.stack(wanted).tolist()


def test_to_the_frame_before():
    cameras = rig(1, 3, 2)
    poses = cameras.camera_to_frame[0].double().numpy()
    for frame in (0, 1):
        wanted = np.linalg.inv(poses[frame + 1]) @ poses[frame]
        np.testing.assert_allclose(cameras.to_earlier(frame)[0], wanted, atol=1e-6)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return CameraDepthNet(8, bins=5, context=3, aspp_width=4, stereo=True).eval()


@torch.no_grad()
def test_the_camera_gates_depth_and_context(net):
    features, vector = torch.randn(2, 8, 4, 6), torch.randn(2, 27)
    out = net(features, vector)
    assert out.shape == (2, 8, 4, 6)
    vector[1, 10] += 1  # of one camera
    changed = net(features, vector)
    assert torch.equal(changed[0], out[0])
    assert not torch.allclose(changed[1, :5], out[1, :5])
    assert not torch.allclose(changed[1, 5:], out[1, 5:])


@torch.no_grad()
def test_stereo_tells_of_depth_not_of_context(net):
    features, vector = torch.randn(2, 8, 4, 6), torch.randn(2, 27)
    one, other = (net(features, vector, torch.rand(2, 5, 16, 24).softmax(1)) for _ in range(2))
    assert torch.equal(one[:, 5:], other[:, 5:])
    assert not torch.allclose(one[:, :5], other[:, :5])
    assert torch.equal(net(features, vector), net(features, vector, torch.zeros(2, 5, 16, 24)))


@torch.no_grad()
def test_the_pyramid_sees_far_and_all():
    """A changed corner is felt by a branch at its dilation, and everywhere through the mean."""
    aspp = Aspp(2, 3).eval()
    x = torch.randn(1, 2, 40, 40)
    other = x.clone()
    other[..., 0, 0] += 1
    for branch, reach in ((aspp.aspp1, 0), (aspp.aspp2, 6), (aspp.aspp3, 12), (aspp.aspp4, 18)):
        felt = (branch(x) != branch(other)).any(1)[0].nonzero()
        assert felt.max() <= reach
        assert {tuple(place) for place in felt.tolist()} <= {(0, 0), (0, reach), (reach, 0), (reach, reach)}
    assert (aspp(x) != aspp(other)).any(1).float().mean() > 0.4
