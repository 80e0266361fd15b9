import pytest
import torch

from models.geomim.blocks import Block, CrossViewBlock
from models.masking import draw_halves
from small_geomim import tiny_inputs, tiny_model


def test_any_number_of_views_gives_two_maps_of_the_targets_shape():
    for views in (1, 5):
        images, cameras, generator = tiny_inputs(views=views)
        model = tiny_model()
        made = model(images, model.geometry(cameras, (64, 64)), draw_halves(2 * views, (2, 2), generator, shared=False))
        assert made.bev.shape == (2, 2, 5, 8, 8)
        assert made.depth_prob.shape == (2, 2, views, 10, 4, 4)
        torch.testing.assert_close(made.depth_prob.sum(3), torch.ones(2, 2, views, 4, 4))


def test_a_reconstruction_does_not_see_the_other_half():
    images, cameras, generator = tiny_inputs()
    model = tiny_model().eval()
    groups = draw_halves(6, (2, 2), generator)
    shown = (groups == 0).repeat_interleave(32, 1).repeat_interleave(32, 2)
    other = torch.where(shown, images, torch.randn(images.shape, generator=generator))
    seen = model.geometry(cameras, (64, 64))
    with torch.no_grad():
        first, second = model(images, seen, groups), model(other, seen, groups)
    torch.testing.assert_close(first.bev[0], second.bev[0], atol=1e-6, rtol=0)
    assert not torch.allclose(first.bev[1], second.bev[1])


@pytest.mark.parametrize("ablation", ["cross_view", "geometry_branch", "camera_aware"])
def test_every_weight_learns_with_and_without_a_part(ablation):
    images, cameras, generator = tiny_inputs()
    depth_map = torch.rand(2, 3, 4, 4, generator=generator) * 12
    for model in (tiny_model(), tiny_model(**{ablation: False})):
        for block in model.modules():
            if isinstance(block, CrossViewBlock):  # starts as the identity, which passes no gradient inside
                torch.nn.init.normal_(block.attn.proj.weight)
                torch.nn.init.normal_(block.mlp.fc2.weight)
        made = model(images, model.geometry(cameras, (64, 64)), draw_halves(6, (2, 2), generator))
        model.losses(made, torch.randn(2, 5, 8, 8, generator=generator), depth_map).total.backward()
        still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert not still


def test_cross_view_attention_mixes_rows_and_nothing_else():
    torch.manual_seed(0)
    block = CrossViewBlock(8, 2)
    x = torch.randn(6, 3, 4, 8)  # two samples of three views
    assert torch.equal(block(x, views=3), x)
    torch.nn.init.normal_(block.attn.proj.weight)
    changed = x.clone()
    changed[1, 2, 0] = torch.randn(8)
    moved = (block(x, views=3) != block(changed, views=3)).any(-1)  # (6, 3, 4)
    expected = torch.zeros(6, 3, 4, dtype=torch.bool)
    expected[:3, 2] = True
    assert torch.equal(moved, expected)


def test_blocks_attend_within_an_image():
    torch.manual_seed(0)
    block = Block(8, 2)
    x = torch.randn(3, 2, 2, 8)
    changed = x.clone()
    changed[1, 0, 0] = torch.randn(8)
    assert (block(x, 3) != block(changed, 3)).flatten(1).any(1).tolist() == [False, True, False]
