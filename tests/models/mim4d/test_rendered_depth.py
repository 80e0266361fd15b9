"""A volume and its field, trained on depths of rays alone, tell the depths of others."""

import pytest
import torch
from torch import Tensor

from models.mim4d.render_loss import depth_loss
from models.mim4d.renderer import Renderer, RenderSpec

SPEC = RenderSpec((-4, -4, -4), (4, 4, 4), 4, 16, 4, sdf_blocks=2, rgb_blocks=1, samples=24, importance=16, near=0.2)
STEPS = 300


def to_sphere(origins: Tensor, directions: Tensor) -> Tensor:
    """Distances to a sphere of 1.5 m; -1 where there is none, as to the plane."""
    offset = origins - torch.tensor([0.3, -0.2, 0.1])
    along = (offset * directions).sum(-1)
    root = along**2 - (offset**2).sum(-1) + 1.5**2
    return torch.where(root > 0, -along - root.clamp(min=0).sqrt(), -1.0)


def to_plane(origins: Tensor, directions: Tensor) -> Tensor:
    """To the ground, 1.7 m below, as far as it is in the box."""
    distances = (-1.7 - origins[:, 2]) / directions[:, 2]
    inside = ((origins + directions * distances[:, None]).abs() < 3.7).all(-1)
    return torch.where(inside & (distances > 0.3), distances, -1.0)


def around(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rays from all sides into the middle."""
    origins = torch.randn(count, 3, generator=generator)
    origins = 3.6 * origins / origins.norm(dim=-1, keepdim=True)
    return origins, 0.6 * torch.randn(count, 3, generator=generator) - origins


def from_above(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    places, heights = (torch.rand(count, n, generator=generator) for n in (2, 1))
    origins = torch.cat([4 * places - 2, 2 * heights - 0.5], 1)
    return origins, torch.cat([1.5 * torch.randn(count, 2, generator=generator), -1.7 - origins[:, 2:]], 1)


@pytest.mark.parametrize(("surface", "rays", "batch"), [(to_sphere, around, 192), (to_plane, from_above, 96)])
def test_depth_to_a_centimetre(surface, rays, batch):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    renderer = Renderer(SPEC)
    volume = torch.zeros(1, 4, 16, 16, 16).normal_(std=0.05).requires_grad_()
    groups = [{"params": renderer.parameters(), "lr": 5e-3}, {"params": [volume], "lr": 2e-2}]
    optimiser = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.001, STEPS)

    def errors(count: int, jittered: bool) -> tuple[Tensor, Tensor]:
        """The loss, and errors of depths where there are some, m."""
        origins, directions = rays(count, generator)
        directions = directions / directions.norm(dim=-1, keepdim=True)
        depths = surface(origins, directions)
        noise = torch.rand(2, 1, count, generator=generator) if jittered else None
        rendered = renderer(volume, origins[None], directions[None], noise)
        eikonal = (rendered.gradients.norm(dim=-1) - 1).square().mean()
        loss = 10 * depth_loss(rendered, depths[None], SPEC.scale) + 0.1 * eikonal
        return loss, (rendered.depth[0] - depths).abs()[depths > 0]

    for _ in range(STEPS):
        optimiser.zero_grad()
        errors(batch, jittered=True)[0].backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        _, metres = errors(1000, jittered=False)
    assert len(metres) > 500
    assert metres.median() < 0.01
    assert metres.quantile(0.9) < 0.03
