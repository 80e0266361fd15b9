import pytest
import torch

from models.geomim.decoder import Decoder, DecoderSpec
from models.geomim.pixels import PixelMIM, pixel_loss, pixel_target
from models.masking import draw_halves
from small_swin import small_swin


@pytest.fixture
def model():
    torch.manual_seed(0)
    backbone = small_swin(windows=(8, 4, 4, 2))
    return PixelMIM(backbone, Decoder(32, DecoderSpec(16, 2, 4, cross_view=False, geometry_branch=False)), 2)


def slow_target(image):
    """Token by token, (3, H, W) -> (h, w, 768)."""
    rows = []
    for y in range(0, image.shape[1], 16):
        patches = [image[:, y : y + 16, x : x + 16].reshape(-1) for x in range(0, image.shape[2], 16)]
        rows.append(torch.stack([(p - p.mean()) / (p.var() + 1e-6).sqrt() for p in patches]))
    return torch.stack(rows)


def test_the_target_is_each_tokens_pixels_normalised():
    images = torch.randn(2, 3, 32, 64) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    images[0, :, :16, :16] = 0.3  # a wall of one colour
    torch.testing.assert_close(pixel_target(images, 16), torch.stack([slow_target(image) for image in images]))


def test_only_what_a_half_does_not_see_counts():
    images = torch.randn(3, 3, 64, 96)
    groups = draw_halves(3, (2, 3), torch.Generator().manual_seed(0), ratio=0.6, shared=False)
    made = pixel_target(images, 16).repeat(2, 1, 1, 1, 1)
    fine = groups.repeat_interleave(2, 1).repeat_interleave(2, 2)
    for half in (0, 1):
        made[half][fine == half] += 100
    assert pixel_loss(made, images, groups) == 0
    made[1][fine != 1] += 2
    assert pixel_loss(made, images, groups) == pytest.approx(2)


def test_a_half_is_rebuilt_from_itself_alone(model):
    images, groups = torch.randn(1, 3, 64, 96), torch.tensor([[[0, 1, 1], [1, 0, 0]]])
    seen = (groups == 0).repeat_interleave(32, 1).repeat_interleave(32, 2)
    other = torch.where(seen, images, torch.randn_like(images))
    with torch.no_grad():
        one, two = (model.eval()(i, groups) for i in (images, other))
    assert one.shape == (2, 1, 4, 6, 768)
    torch.testing.assert_close(one[0], two[0])
    assert (one[1] - two[1]).abs().max() > 1e-3


def test_images_are_rebuilt_one_by_one(model):
    images, groups = torch.randn(4, 3, 64, 96), torch.tensor([[[0, 1, 1], [1, 0, 0]]])
    with torch.no_grad():
        together = model.eval()(images, groups)
        alone = torch.cat([model(image[None], groups) for image in images], 1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_it_learns(model):
    images, groups = torch.randn(2, 3, 64, 96), torch.tensor([[[0, 1, 1], [1, 0, 0]]])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(45):
        loss = pixel_loss(model(images, groups), images, groups)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for p in model.backbone.parameters())
