"""Camera detectors of every variant in a few channels, and cameras for them."""

import numpy as np
import torch
from torch import nn

from models.bevdet.detector import BevDet, BevDetSpec
from models.bevdet.encoder import ResidualSpec
from models.bevdet.necks import FpnSpec
from models.cameras import Cameras
from models.depth_bins import DepthBins
from models.geometry import rotation_z
from models.lift_splat import BevGrid
from small_swin import small_swin

SIZE = (64, 96)
# Camera axes (right, down, ahead) in the ego's (ahead, left, up).
AHEAD = np.array([[0.0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])

VARIANTS = {
    "bevdet": {},
    "bevdet4d": {"frames": 2},
    "three frames": {"frames": 3},
    "aligned": {"frames": 2, "align_after_splat": True},
    "bevdepth": {"frames": 2, "camera_aware": True, "aspp_width": 4},
    "bevstereo": {"frames": 2, "camera_aware": True, "aspp_width": 4, "stereo": True},
    "long stereo": {"frames": 3, "camera_aware": True, "aspp_width": 4, "stereo": True},
}


def small_detector(head: nn.Module | None = None, spacing: str = "even", **variant) -> BevDet:
    """A detector in eval() whose every weight and buffer is random."""
    net = BevDet(
        small_swin(windows=(4, 4, 4, 2), num_heads=(1, 1, 1, 1), grid=4),
        head or nn.Identity(),
        BevDetSpec(
            BevGrid((-8, 8), (-8, 8), (-5, 3), 1.0),
            DepthBins(1.0, 9.0, 1.0, spacing),
            SIZE,
            context=4,
            **{
                "image_neck": FpnSpec(8),
                "bev_encoder": ResidualSpec((8, 8, 8)),
                "bev_neck": FpnSpec(8, (0, 2), 4, 2),
            }
            | variant,
        ),
    )
    for layer in net.backbone.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()  # of unit gain: from 0.02 a frame would hardly count
    for name, value in net.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(std=0.02)
        elif name.endswith("running_var"):
            value.uniform_(0.02, 0.1)  # small, so that differences don't fade away layer by layer
        elif value.ndim == 1 and value.is_floating_point():
            value.add_(torch.randn(value.shape) * 0.1)
    return net.eval()


def turned(yaw: float, ahead: float, left: float) -> np.ndarray:
    """A motion in the plane, 4x4."""
    motion = np.eye(4)
    motion[:3, :3], motion[:2, 3] = rotation_z(yaw), (ahead, left)
    return motion


def rig(batch: int, frames: int, views: int, step: float = 0.5, seed: int = 0) -> Cameras:
    """Cameras that look around; in every earlier frame the ego was `step` m behind. Images are augmented."""
    random = np.random.default_rng(seed)
    intrinsics = np.array([[60.0, 0, 48], [0, 60, 32], [0, 0, 1]])
    poses = np.stack(
        [
            [turned(0.05 * t, -step * t, 0.1 * t) @ turned(2 * np.pi * n / views, 0, 0) @ AHEAD for n in range(views)]
            for t in range(frames)
        ]
    )
    post = np.tile(np.eye(4), (batch, 1, views, 1, 1))
    post[..., :2, :2] = random.uniform(0.9, 1.1, (batch, 1, views, 1, 1)) * np.eye(2)
    post[..., :2, 3] = random.uniform(-3, 3, (batch, 1, views, 2))
    scene = np.stack([turned(random.uniform(-0.4, 0.4), 0, 0) for _ in range(batch)])
    return Cameras(
        torch.tensor(intrinsics).float().expand(batch, frames, views, 3, 3),
        torch.tensor(post).float().expand(batch, frames, views, 4, 4),
        torch.tensor(poses).float().expand(batch, frames, views, 4, 4),
        torch.tensor(poses[0]).float().expand(batch, views, 4, 4),
        torch.tensor(scene).float(),
    )
