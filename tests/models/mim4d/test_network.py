"""The network as a whole: what may reach a rendered ray, and what may not."""

import pytest
import torch

from models.lift_splat import BevGrid, bev_cells
from models.mim4d.video import RayBundle, Targets
from small_mim4d import FRAMES, GRID, SIZE, VIEWS, clip_of_noise, looking_around, small_mim4d


@pytest.mark.parametrize("backbone", ["swin", "convnext"])
@pytest.mark.parametrize("training", [True, False])
def test_a_dropped_frame_cannot_leak(backbone, training):
    """What is rebuilt for a frame has no gradient at all with regard to its images; its own volume has."""
    model = small_mim4d(backbone).train(training)
    images, visible, targets, _ = clip_of_noise()
    images.requires_grad_()
    plan = model.geometry(looking_around(1), SIZE)
    lifted = model.lift(images, visible, plan)
    volumes = model.video.project(lifted.flatten(0, 1)).unflatten(0, lifted.shape[:2])
    rebuilt = model.video.rebuild(volumes, targets)
    for k, frame in enumerate(targets.target[0].tolist()):
        (gradient,) = torch.autograd.grad(rebuilt[0, k].square().sum(), images, retain_graph=True)
        assert (gradient[0, frame] == 0).all()
        assert (gradient[0, [t for t in range(FRAMES) if t != frame]] != 0).any(-1).any(-1).any(-1).all()
        (gradient,) = torch.autograd.grad(volumes[0, frame].square().sum(), images, retain_graph=True)
        assert (gradient[0, frame] != 0).any()
        assert (gradient[0, [t for t in range(FRAMES) if t != frame]] == 0).all()


@pytest.mark.parametrize("backbone", ["swin", "convnext"])
def test_what_is_hidden_has_no_influence(backbone):
    model = small_mim4d(backbone).train()
    images, visible, targets, rays = clip_of_noise()
    images.requires_grad_()
    out = model(images, visible, model.geometry(looking_around(1), SIZE), targets, rays)
    total = sum(part.rgb.sum() + part.depth.sum() for part in out)
    (gradient,) = torch.autograd.grad(total, images)
    shown = visible.view(1, FRAMES, VIEWS, 2, 3).repeat_interleave(32, -2).repeat_interleave(32, -1)[:, :, :, None]
    assert (gradient * ~shown == 0).all()
    assert (gradient != 0).any()


def test_a_batch_is_its_samples():
    model = small_mim4d().eval()
    images, visible, targets, rays = clip_of_noise(batch=2)
    images[1] += 0.5
    whole = model(images, visible, model.geometry(looking_around(2), SIZE), targets, rays)
    per_sample = FRAMES * VIEWS
    for b in range(2):
        one = model(
            images[b : b + 1],
            visible[b * per_sample : (b + 1) * per_sample],
            model.geometry(looking_around(1), SIZE),
            Targets(*(part[b : b + 1] for part in targets)),
            RayBundle(rays.origins[b : b + 1], rays.directions[b : b + 1], rays.noise[:, b : b + 1]),
        )
        for ours, theirs in zip(whole, one):
            torch.testing.assert_close(ours.rgb[2 * b : 2 * b + 2], theirs.rgb, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(ours.depth[2 * b : 2 * b + 2], theirs.depth, rtol=1e-4, atol=1e-4)


def test_one_frame_is_unipad():
    """Its direct half, with the same weights; nothing is rebuilt."""
    video, single = small_mim4d().eval(), small_mim4d(frames=1).eval()
    single.load_state_dict({k: v for k, v in video.state_dict().items() if not k.startswith("video.temporal.")})
    images, visible, targets, rays = clip_of_noise()
    of_key = RayBundle(rays.origins[:, :1], rays.directions[:, :1], rays.noise[:, :, :1])
    whole = video(images, visible, video.geometry(looking_around(1), SIZE), targets, rays)
    _, _, alone, _ = clip_of_noise(frames=1)
    alone = Targets(
        torch.zeros(1, 1).long(), torch.zeros(1, 1, 0).long(), torch.zeros(1, 1, 0).bool(), torch.zeros(1, 1, 0, 4, 4)
    )
    plan = single.geometry(looking_around(1, 1), SIZE)
    out = single(images[:, :1], visible[:VIEWS], plan, alone, of_key)
    assert out.rebuilt is None
    torch.testing.assert_close(out.direct.rgb[0], whole.direct.rgb[0], rtol=1e-4, atol=1e-5)


def test_a_camera_without_the_frame_fills_nothing():
    model = small_mim4d().eval()
    images, visible, *_ = clip_of_noise()
    there = torch.ones(1, FRAMES, VIEWS, dtype=torch.bool)
    there[0, 1] = False
    volumes = model.lift(images, visible, model.geometry(looking_around(1), SIZE, there))[0]
    assert (volumes[1] == 0).all()
    assert (volumes[[0, 2]] != 0).any(-1).any(-1).any(-1).any(-1).all()


def test_heights_lie_above_each_other():
    points = torch.tensor([[0.5, 0.5, -3.9], [0.5, 0.5, -1.9], [0.5, 0.5, 3.99], [0.5, 0.5, 4.0], [-8.0, -8.0, 0.1]])
    cells = bev_cells(points.double(), GRID, order="yx")
    middle = 8 * 16 + 8
    assert cells.tolist() == [middle, 256 + middle, 3 * 256 + middle, -1, 2 * 256]
    flat = bev_cells(points.double(), BevGrid(GRID.x, GRID.y, GRID.z, GRID.cell), order="yx")
    assert [cell % 256 if cell >= 0 else -1 for cell in cells.tolist()] == flat.tolist()
