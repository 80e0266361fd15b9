"""Detectors on a ConvNeXt and on a ResNet: a step, their weights in and out, and another backbone's by name."""

import pytest
import torch
from safetensors.torch import save_file

from common.errors import UserError
from flows.export import export_weights
from models.backbones.build import build_backbone
from models.layouts import convnext_to_torchvision
from tasks.finetune.network import build_detector, load_backbone, load_detector, save_detector
from tasks.finetune.optimiser import parameter_groups

BACKBONES = {"resnet": {"name": "resnet", "depth": 18}, "convnext": {"name": "convnext", "size": "tiny"}}


@pytest.fixture(params=BACKBONES)
def config(world, request):
    return world.configured(backbone=BACKBONES[request.param], init="random")


@pytest.mark.parametrize("stereo", [False, True])
def test_every_backbone_takes_a_step(world, tmp_path, stereo):
    """On a ResNet, from random weights, to the end of a training and its evaluation."""
    view = {"frames": 2, "camera_aware": True, "aspp_width": 4, "stereo": True} if stereo else {}
    fields = {"backbone": BACKBONES["resnet"], "init": "random", "view": view, "steps": 1}
    trained = world.finetune(tmp_path, inputs=world.without("pretrain"), **fields)
    before = build_detector(world.configured(**fields)).state_dict()
    after = load_detector_state(world.configured(**fields), trained.path / "detector.safetensors")
    assert before.keys() == after.keys()
    _, summary = world.evaluate(tmp_path / "evaluation", trained, **fields)
    assert 0 <= summary["NDS"] <= 1


def load_detector_state(config, file):
    detector = build_detector(config)
    load_detector(detector, file, config)
    return detector.state_dict()


def test_every_parameter_learns(config):
    torch.manual_seed(0)
    detector = build_detector(config).train()
    assert detector.stride == 16
    maps = detector.backbone(torch.randn(2, 3, 64, 128))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (channels, 64 // stride, 128 // stride)
        for channels, stride in zip(config.backbone.channels, config.backbone.strides)
    ]
    detector.image_neck(*(maps[stage] for stage in detector.backbone.out_indices)).square().mean().backward()
    assert all(p.grad is not None for p in detector.backbone.parameters())
    groups = parameter_groups(detector, 0.1, 0.05, layer_decay=0.5, backbone_rate=0.1)
    last = sum(config.backbone.depths) + 1
    rates = sorted({group["lr"] for group in groups})
    behind = range(last + (config.backbone.name == "convnext"))  # its norms come after the last block
    assert rates == pytest.approx([*(0.01 * 0.5 ** (last - layer) for layer in behind), 0.1])


def test_a_detector_comes_back_and_no_other_takes_its_weights(world, config, tmp_path):
    file = tmp_path / "detector.safetensors"
    detector, other = build_detector(config), build_detector(config)
    save_detector(detector, file, config)
    load_detector(other, file, config)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in detector.state_dict().items())
    with pytest.raises(UserError, match=rf"was trained with finetune.backbone.name = {config.backbone.name}, not swin"):
        load_detector(build_detector(world.config), file, world.config)
    save_detector(build_detector(world.config), file, world.config)
    with pytest.raises(UserError, match=rf"was trained with finetune.backbone.name = swin, not {config.backbone.name}"):
        load_detector(other, file, config)


def test_a_detectors_backbone_is_exported_and_begins_another(config, tmp_path, capsys):
    detector, other = build_detector(config), build_detector(config)
    save_detector(detector, tmp_path / "detector.safetensors", config)
    export_weights(tmp_path / "detector.safetensors", tmp_path / "out.pth", "torchvision")
    said = {"resnet": "ResNet: depth 18", "convnext": "ConvNeXt: size tiny"}
    assert said[config.backbone.name] in capsys.readouterr().out
    told = load_backbone(other, tmp_path / "out.pth")
    assert "torchvision layout" in told
    assert ("left as initialised: backbone.norm2 (2)" in told) == (config.backbone.name == "convnext")
    for name, value in detector.backbone.state_dict().items():
        assert name.startswith("norm2.") or torch.equal(value, other.backbone.state_dict()[name]), name
    with pytest.raises(UserError, match=f"swin is no layout of a {config.backbone.name}, which"):
        export_weights(tmp_path / "detector.safetensors", tmp_path / "swin.pth", "swin")


def test_other_networks_files_are_refused_by_name(world, tmp_path):
    convnext = build_backbone(world.configured(backbone=BACKBONES["convnext"]).backbone)
    save_file(convnext_to_torchvision(convnext.state_dict()), tmp_path / "convnext.safetensors")
    with pytest.raises(UserError, match="name is convnext in the file, swin in the config"):
        load_backbone(build_detector(world.config), tmp_path / "convnext.safetensors")
