import pytest
import torch

from models.backbones.build import build_backbone
from models.backbones.config import SwinConfig
from models.checkpointing import set_checkpointing
from models.layouts import network_sizes
from models.masking import upsample_groups
from small_swin import small_swin


def tiny_swin(**kwargs):
    torch.manual_seed(0)
    return small_swin(depths=(1, 1, 2, 1), **kwargs).eval()


def test_shapes_of_sizes_that_do_not_divide():
    maps = tiny_swin()(torch.randn(2, 3, 70, 98))
    assert [tuple(m.shape) for m in maps] == [(2, 8, 18, 25), (2, 16, 9, 13), (2, 32, 5, 7), (2, 64, 3, 4)]


@pytest.mark.parametrize("shared", [True, False])
def test_groups_do_not_see_each_other(shared):
    """Changing every pixel of group 1 changes nothing in group 0, in any stage's map."""
    swin = tiny_swin()
    generator = torch.Generator().manual_seed(1)
    groups = torch.randint(0, 2, (1 if shared else 2, 2, 3), generator=generator)
    images = torch.randn(2, 3, 64, 96, generator=generator)
    pixels = upsample_groups(groups, 64, 96).unsqueeze(1)
    other = torch.where(pixels == 0, images, torch.randn(images.shape, generator=generator))
    with torch.no_grad():
        for first, second in zip(swin(images, groups), swin(other, groups)):
            shown = (upsample_groups(groups, *first.shape[-2:]) == 0).unsqueeze(1).expand_as(first)
            torch.testing.assert_close(first[shown], second[shown], atol=1e-6, rtol=0)
            assert not torch.allclose(first[~shown], second[~shown])


def test_checkpointing_changes_no_gradient():
    """Bit for bit, stochastic depth included."""
    images, groups = torch.randn(2, 3, 64, 96), torch.randint(0, 2, (1, 2, 3))
    results = []
    for checkpointing in ("none", "mlp", "block"):
        swin = tiny_swin(drop_path=0.5).train()
        set_checkpointing(swin, checkpointing)
        torch.manual_seed(1)
        maps = swin(images, groups)
        sum(m.square().mean() for m in maps).backward()
        results.append([*maps, *(p.grad for p in swin.parameters())])
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*results))


def test_drop_path_drops_whole_images_in_training_only():
    swin = tiny_swin(drop_path=0.9)
    image = torch.randn(1, 3, 32, 32).expand(16, 3, 32, 32)
    torch.testing.assert_close(*swin(image)[3][:2])
    swin.train()
    different = (swin(image)[2] - swin(image)[2][:1]).abs().flatten(1).amax(1) > 1e-3
    assert different.any()


def test_a_first_stage_without_blocks_merges_patches_as_they_are():
    torch.manual_seed(0)
    swin, images = small_swin(depths=(0, 1, 1, 1)).eval(), torch.randn(1, 3, 64, 96)
    first, second, *_ = swin(images)
    patches = swin.patch_embed(images) + swin.position_embedding(16, 24)
    torch.testing.assert_close(first, patches.permute(0, 3, 1, 2))
    assert second.shape == (1, 16, 8, 12)
    sizes = network_sizes(swin.state_dict())
    assert sizes["depths"] == (0, 1, 1, 1)
    again = build_backbone(SwinConfig(**sizes))
    again.load_state_dict(swin.state_dict())
    assert torch.equal(again.eval()(images)[3], swin(images)[3])
    with pytest.raises(ValueError, match=r"depths\[1\] is 0"):
        small_swin(depths=(1, 0, 1, 1))
