"""The model against `tests/support/geomim_reference.py`, the same mathematics written the obvious way."""

import pytest
import torch

import geomim_reference
from models.checkpointing import set_checkpointing
from models.depth_bins import DepthBins
from models.geomim.blocks import CrossViewBlock
from models.geomim.decoder import DecoderSpec
from models.geomim.model import GeoMIM, GeoMIMSpec
from models.geomim.view_transform import ViewTransformSpec
from models.lift_splat import BevGrid
from models.masking import draw_halves
from one_frame import one_frame
from small_swin import small_swin

FORWARD = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # camera axes -> LiDAR axes


def small_model(cells, patch):
    """With windows that overhang, and a BEV of `cells` a side."""
    torch.manual_seed(0)
    backbone = small_swin(depths=(1, 1, 2, 1))
    grid = BevGrid((-cells, cells), (-cells, cells), (-5.0, 5.0), 1.0)
    view = ViewTransformSpec(DepthBins(1, 11, 1), grid, context=6)
    spec = GeoMIMSpec(DecoderSpec(16, 2, 4), view, fusion_heads=2, target_channels=5, patch=patch)
    model = GeoMIM(backbone, spec).double()
    for block in model.modules():
        if isinstance(block, CrossViewBlock):  # starts as the identity
            torch.nn.init.normal_(block.attn.proj.weight, std=0.2)
            torch.nn.init.normal_(block.mlp.fc2.weight, std=0.2)
    return model


def small_batch(batch, views, size, cells, shared):
    generator = torch.Generator().manual_seed(1)
    height, width = size
    poses = FORWARD + 0.1 * torch.randn(batch, views, 4, 4, generator=generator)
    poses[..., 3, :] = FORWARD[3]
    intrinsics = torch.tensor([[60.0, 0, width / 2], [0, 60, height / 2], [0, 0, 1]])
    post = torch.eye(4) + torch.zeros(batch, views, 4, 4)
    cameras = one_frame(*(t.double() for t in (intrinsics.expand(batch, views, 3, 3), post, poses, poses)))
    images = torch.randn(batch, views, 3, height, width, generator=generator, dtype=torch.float64)
    groups = draw_halves(batch * views, (height // 32, width // 32), generator, shared=shared)
    bev = torch.randn(batch, 5, cells, cells, generator=generator, dtype=torch.float64)
    depth = 12 * torch.rand(batch, views, height // 16, width // 16, generator=generator, dtype=torch.float64)
    return (images, cameras, groups), (bev, depth)


@pytest.mark.parametrize(
    ("batch", "views", "size", "cells", "patch", "shared"),
    [
        (2, 1, (96, 160), 8, 4, True),  # stage grids 24x40, 12x20, 6x10, 3x5
        (1, 5, (32, 96), 6, 3, False),
        (1, 7, (64, 32), 9, 3, True),
    ],
)
def test_maps_losses_and_gradients_are_the_references(batch, views, size, cells, patch, shared):
    model = small_model(cells, patch)
    inputs, targets = small_batch(batch, views, size, cells, shared)
    images, cameras, groups = inputs
    made = model(images, model.geometry(cameras, size), groups)
    expected = geomim_reference.forward(model, *inputs)
    assert made.bev.shape == (2, batch, 5, cells, cells)
    assert made.depth_prob.shape == (2, batch, views, 10, size[0] // 16, size[1] // 16)
    torch.testing.assert_close(made, expected)
    parameters = tuple(model.parameters())
    losses, expected_losses = model.losses(made, *targets), model.losses(expected, *targets)
    torch.testing.assert_close(losses, expected_losses)
    grads, expected_grads = (torch.autograd.grad(out.total, parameters) for out in (losses, expected_losses))
    torch.testing.assert_close(grads, expected_grads)


def test_checkpointing_changes_no_gradient_and_keeps_less():
    (images, cameras, groups), targets = small_batch(1, 2, (64, 96), 8, True)
    results, kept = [], []
    for checkpointing in ("none", "mlp", "block"):
        model = small_model(8, 4).train()
        set_checkpointing(model, checkpointing)
        storages = {}

        def keep(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            made = model(images, model.geometry(cameras, (64, 96)), groups)
        losses = model.losses(made, *targets)
        losses.total.backward()
        results.append([*losses, *(p.grad for p in model.parameters()), *model.buffers()])
        kept.append(sum(storages.values()))
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*results))
    assert kept[1] < 0.9 * kept[0], kept
    assert kept[2] < 0.7 * kept[1], kept
