"""ResNet against mmdet's own."""

import importlib

import pytest
import torch
from torch import nn

from models.backbones.config import ResNetConfig
from models.backbones.resnet import ResNet, norms_at_rest
from models.checkpointing import set_checkpointing


def a_resnet(depth: int, **how) -> ResNet:
    """Every weight and buffer is random."""
    torch.manual_seed(depth)
    net = ResNet(ResNetConfig(name="resnet", depth=depth), **how).eval()
    for name, value in net.state_dict().items():
        if value.ndim == 1:
            value.uniform_(0.5, 1.5) if name.endswith(("weight", "running_var")) else value.normal_(std=0.1)
    return net


@pytest.mark.parametrize("depth", [18, 50])
def test_mmdets_own_resnet_takes_the_weights_and_agrees(depth):
    importlib.import_module("models.openmmlab")  # before mmdet: it may stand in for mmcv's operators
    from mmdet.models.backbones.resnet import ResNet as Theirs

    ours, theirs = a_resnet(depth), Theirs(depth, style="pytorch", norm_eval=False)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 96)
    for mode in (False, True):  # with running statistics, then the batch's, which move them
        ours.train(mode)
        theirs.train(mode)
        with torch.no_grad():
            assert all(map(torch.equal, ours(images), theirs(images)))
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    assert ours.channels == tuple(found.shape[1] for found in ours(images))
    assert ours.strides == tuple(64 // found.shape[2] for found in ours(images))


def test_stopping_early_gives_the_same_maps():
    net, images = a_resnet(18), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        whole, (early,) = net(images), net(images, stop_at=0)
    assert torch.equal(early, whole[0])


def test_checkpointing_changes_neither_gradients_nor_running_statistics():
    results, images = [], torch.randn(2, 3, 64, 64)
    for checkpointing in ("none", "mlp", "block"):
        net = a_resnet(18, drop_path=0.5).train()
        set_checkpointing(net, checkpointing)
        torch.manual_seed(1)
        maps = net(images)
        sum(m.square().mean() for m in maps).backward()
        results.append([*maps, *(p.grad for p in net.parameters()), *net.buffers()])
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*results, strict=True))


def test_norms_at_rest_normalise_by_the_batch():
    norm, x = nn.BatchNorm2d(3), torch.randn(4, 3, 5, 5) + 7
    before = [buffer.clone() for buffer in norm.buffers()]
    with norms_at_rest(norm):
        out = norm(x)
    assert all(map(torch.equal, norm.buffers(), before))
    assert torch.equal(out, norm(x))
    assert not torch.equal(norm.running_mean, before[0])


def test_a_block_begins_as_the_identity():
    net = ResNet(ResNetConfig(name="resnet", depth=18)).eval()
    x = torch.rand(1, 64, 8, 8)
    assert torch.equal(net.layer1[0](x), x)
    assert net.conv1.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)


def test_layers_are_counted_block_by_block():
    net = a_resnet(50)
    layers = {
        "conv1.weight": 0,
        "bn1.bias": 0,
        "layer1.0.conv1.weight": 1,
        "layer1.2.bn3.bias": 3,
        "layer2.0.downsample.0.weight": 4,
        "layer3.5.conv2.weight": 13,
        "layer4.2.bn1.weight": 16,
    }
    assert {name: net.layer_of(name) for name in layers} == layers
    assert {net.layer_of(name) for name, _ in net.named_parameters()} == set(range(17))
