"""MIM4D of a few channels, and a clip of noise for it."""

from types import SimpleNamespace

import torch

from models.backbones.config import SwinConfig
from models.backbones.convnext import ConvNeXt
from models.backbones.swin import Swin
from models.cameras import Cameras
from models.depth_bins import DepthBins
from models.lift_splat import BevGrid
from models.mim4d.network import MIM4D, LiftSpec
from models.mim4d.renderer import RenderSpec
from models.mim4d.temporal import TemporalSpec
from models.mim4d.video import RayBundle, Targets

GRID = BevGrid((-8.0, 8.0), (-8.0, 8.0), (-4.0, 4.0), 1.0, heights=4)
SIZE, FRAMES, VIEWS, RAYS = (64, 96), 3, 2, 12


def small_mim4d(backbone: str = "swin", frames: int = FRAMES) -> MIM4D:
    torch.manual_seed(0)
    made = (
        Swin(SwinConfig(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4), window_sizes=(8, 4, 4, 2)))
        if backbone == "swin"
        else ConvNeXt(SimpleNamespace(depths=(1, 1, 1, 1), channels=(8, 16, 24, 32), strides=(4, 8, 16, 32)))
    )
    lift = LiftSpec(GRID, DepthBins(1.0, 9.0, 1.0), width=16, context=8)
    render = RenderSpec(GRID.low, GRID.high, channels=8, samples=8, importance=4)
    temporal = TemporalSpec((16, 16), 8, 4, frames - 1, width=16, short_ffn=16, long_ffn=16) if frames > 1 else None
    return MIM4D(made, lift, render, temporal)


def looking_around(batch: int, frames: int = FRAMES) -> Cameras:
    """Two level cameras, ahead and behind."""
    level = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
    back = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)) @ level
    poses = torch.stack([level, back]).expand(batch * frames, VIEWS, 4, 4)
    intrinsics = torch.tensor([[60.0, 0, 48], [0, 60, 32], [0, 0, 1]]).double().expand(batch * frames, 1, VIEWS, 3, 3)
    eye = torch.eye(4, dtype=torch.float64)
    post = eye.expand(batch * frames, 1, VIEWS, 4, 4)
    return Cameras(intrinsics, post, poses[:, None], poses, eye.expand(batch * frames, 4, 4))


def clip_of_noise(batch: int = 1, frames: int = FRAMES):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(batch, frames, VIEWS, 3, *SIZE, generator=generator)
    visible = torch.rand(batch * frames * VIEWS, 2, 3, generator=generator) < 0.7
    target = torch.tensor([[0, frames - 1]] if frames > 1 else [[0]]).expand(batch, -1)
    others = torch.tensor([[[t for t in range(frames) if t != k] for k in target[0].tolist()]]).expand(batch, -1, -1)
    moved = torch.eye(4, dtype=torch.float64).repeat(batch, target.shape[1], frames - 1, 1, 1)
    moved[..., 0, 3] = 0.3
    directions = torch.nn.functional.normalize(
        torch.randn(batch, target.shape[1], RAYS, 3, generator=generator), dim=-1
    )
    noise = torch.rand(2, batch, target.shape[1], RAYS, generator=generator)
    targets = Targets(target, others.long(), torch.ones_like(others, dtype=torch.bool), moved)
    return images, visible, targets, RayBundle(torch.zeros_like(directions), directions, noise)
