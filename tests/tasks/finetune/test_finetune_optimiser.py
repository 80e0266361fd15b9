"""Rates by depth, against BEiT's rule written down for the published Swin."""

import pytest

from models.backbones.config import SwinConfig
from models.backbones.swin import Swin
from tasks.finetune.network import build_detector
from tasks.finetune.optimiser import parameter_groups

LAYERS = {
    "absolute_pos_embed": 0,
    "patch_embed.projection.weight": 0,
    "patch_embed.norm.bias": 0,
    "stages.0.blocks.0.attn.qkv.weight": 1,
    "stages.0.blocks.1.mlp.fc1.bias": 2,
    "stages.0.downsample.reduction.weight": 3,
    "stages.1.blocks.0.norm1.weight": 3,
    "stages.1.downsample.norm.bias": 5,
    "stages.2.blocks.0.attn.relative_position_bias_table": 5,
    "stages.2.blocks.17.norm2.weight": 22,
    "stages.2.downsample.reduction.weight": 23,
    "stages.3.blocks.1.mlp.fc2.weight": 24,
    "norm2.weight": 25,
    "norm3.bias": 25,
}


def test_layers_are_counted_as_published():
    swin = Swin(SwinConfig(embed_dim=32))
    assert {name: swin.layer_of(name) for name in LAYERS} == LAYERS
    assert {swin.layer_of(name) for name, _ in swin.named_parameters()} == set(range(26))


def test_every_parameter_has_its_rate_and_decay(world):
    detector = build_detector(world.config)
    groups = parameter_groups(detector, 0.1, 0.05, layer_decay=0.5, backbone_rate=0.1)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found) == len(list(detector.parameters()))
    last = sum(world.config.backbone.depths) + 1
    for name, parameter in detector.named_parameters():
        inside = name.removeprefix("backbone.")
        rate = 0.1 * 0.5 ** (last - detector.backbone.layer_of(inside) if inside != name else 0)
        decay = 0.0 if parameter.dim() <= 1 or name.endswith(".bias") else 0.05
        wanted = (rate * (0.1 if name.startswith("backbone.") else 1.0), decay)
        assert found[id(parameter)] == pytest.approx(wanted), name


def test_a_frozen_backbone_has_no_group(world):
    detector = build_detector(world.configured(backbone_rate=0))
    groups = parameter_groups(detector, 0.1, 0.05, backbone_rate=0.0)
    there = {id(p) for group in groups for p in group["params"]}
    assert not there & {id(p) for p in detector.backbone.parameters()}
    assert {group["lr"] for group in groups} == {0.1}
