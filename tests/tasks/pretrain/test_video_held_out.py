"""What is said of rendered frames, of renderings that are known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from batches.clips import ClipBatch, Clips
from clip_world import MIM4D, clip_world, opened  # noqa: F401
from models.mim4d.renderer import Rendered
from models.mim4d.video import VideoRendered
from tasks.pretrain.methods.mim4d import Config
from tasks.pretrain.mim4d.held_out import BLOCK, HeldOutVideo
from tasks.pretrain.mim4d.method import clip_spec
from tasks.pretrain.mim4d.picture import STEP, dense

CONFIG = Config(**MIM4D | {"probe_samples": 0})
SIZE = (64, 160)


@pytest.fixture(scope="module")
def clips(clip_world):  # noqa: F811
    from tasks.pretrain.config import PretrainConfig

    config = PretrainConfig(image={"size": SIZE}, method=MIM4D)
    return Clips(config, clip_spec(CONFIG), opened(clip_world["ingest"].path), clip_world.dataroot)


def rendered(depth: torch.Tensor, rgb: torch.Tensor, hit: torch.Tensor) -> Rendered:
    return Rendered(rgb, depth, hit, *[torch.zeros(0)] * (len(Rendered._fields) - 3))


def held_out(clips: Clips, off: float = 0.0, rebuilt_off: float = 0.0) -> HeldOutVideo:
    """Of a model that is told the truth and adds something to every distance and colour."""

    def render(model: nn.Module, clip: ClipBatch) -> VideoRendered:
        assert not model.training
        depth, rgb, hit = (value.flatten(0, 1) for value in (clip.depths, clip.colours, clip.cast))
        direct = rendered(depth + off, rgb + off, hit)
        return VideoRendered(direct, rendered(depth + rebuilt_off, rgb + rebuilt_off, hit))

    cpu = torch.device("cpu")
    return HeldOutVideo(clips, render, lambda *_: torch.zeros(0), CONFIG, np.array([1, 2]), np.array([0, 1]), cpu)


def test_errors_of_known_renderings(clips):
    model = nn.Identity().train()
    figures = held_out(clips, 0.5, 0.1).evaluate(model)
    assert model.training
    assert figures["depth"] == pytest.approx(0.5, abs=1e-5)
    assert figures["depth_rebuilt"] == pytest.approx(0.1, abs=1e-5)
    assert figures["psnr"] == pytest.approx(-20 * math.log10(0.5), abs=1e-4)
    assert figures["psnr_rebuilt"] == pytest.approx(20, abs=1e-4)
    assert all(np.isfinite(value) for value in figures.values())


def test_blind_answers_are_medians_and_means_of_training(clips):
    """Block by block, by hand, with what all are where a block has none."""
    blind = held_out(clips).blind
    rays = []
    for sample in (0, 1):
        clip = clips.held_out([sample])
        for pixel, depth, colour, cast in zip(
            clip.pixels[0, 0].tolist(),
            clip.depths[0, 0].tolist(),
            clip.colours[0, 0].tolist(),
            clip.cast[0, 0].tolist(),
        ):
            if cast:
                rays.append(((pixel[0], pixel[1] // BLOCK, pixel[2] // BLOCK), depth, colour))
    known = sorted(depth for _, depth, _ in rays if depth > 0)
    assert blind.depth == pytest.approx(known[(len(known) - 1) // 2])
    for camera, row, column in np.ndindex(*blind.depths.shape):
        there = [ray for ray in rays if ray[0] == (camera, row, column)]
        depths = sorted(depth for _, depth, _ in there if depth > 0)
        wanted = depths[(len(depths) - 1) // 2] if depths else blind.depth
        assert float(blind.depths[camera, row, column]) == pytest.approx(wanted)
        mean = np.mean([colour for *_, colour in there], 0) if there else blind.colour.numpy()
        np.testing.assert_allclose(blind.colours[camera, row, column], mean, atol=1e-5)


def test_another_samples_images_are_told_apart(clips):
    """A model that reads the distance off the images: right with its own, wrong with another's."""

    def render(model: nn.Module, clip: ClipBatch) -> VideoRendered:
        seen = clip.images[:, 0].float().mean()
        right = clips.held_out([int(clips.index.sample_of[clip.tokens[0]])])
        off = (seen - right.images[:, 0].float().mean()).abs()
        direct = rendered((clip.depths + 100 * off).flatten(0, 1), clip.colours.flatten(0, 1), clip.cast.flatten(0, 1))
        return VideoRendered(direct, None)

    cpu = torch.device("cpu")
    evaluator = HeldOutVideo(
        clips, render, lambda *_: torch.zeros(0), CONFIG.model_copy(update={"frames": 1}), np.array([1, 2]),
        np.array([0]), cpu,
    )  # fmt: skip
    figures = evaluator.evaluate(nn.Identity())
    assert figures["depth"] == pytest.approx(0, abs=1e-6)
    assert figures["depth_shuffled"] > 1


def test_the_pictures_rays_go_through_every_step_of_every_camera(clips):
    clip = clips.held_out([1])
    full = dense(clip)
    rows, columns = len(range(STEP // 2, SIZE[0], STEP)), len(range(STEP // 2, SIZE[1], STEP))
    assert full.origins.shape == (1, 1, 6 * rows * columns, 3)
    assert full.noise.shape == (2, 1, 1, 6 * rows * columns)
    assert full.others.shape == (1, 1, 2)
    # A ray through a LiDAR point lies between the dense rays about it.
    known = (clip.depths[0, 0] > 0).nonzero()[:20, 0]
    for ray in known.tolist():
        camera, row, column = clip.pixels[0, 0, ray].tolist()
        place = camera * rows * columns + min(row // STEP, rows - 1) * columns + min(column // STEP, columns - 1)
        assert torch.equal(full.origins[0, 0, place], clip.origins[0, 0, ray])
        assert float(full.directions[0, 0, place] @ clip.directions[0, 0, ray]) > math.cos(math.radians(3))
