"""The camera detectors' backbone and image neck (bevdet_backbone)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from models.backbones.swin import Swin
from models.bevdet.layout import bevdet_from_public
from models.bevdet.necks import FpnLss
from models.public.bevdet import read_fpn
from models.public.swin import read_swin
from models.public.used import Used
from oracles.base import Kind, Oracle, Output, Tolerance, leading, norms, recorded

MAPS = Tolerance(3e-5, bf16=0.03)
BF16_GRADIENTS = 0.12  # of a mean in which most cancels
GRADIENTS = 1e-4  # relative


class Backbone(nn.Module):
    """Swin and image neck, with the names of `BevDet`."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        with Used(config["backbone"], "backbone") as swin:
            self.backbone = Swin(read_swin(swin, (1, 2, 3), "SwinTransformerBEVFT"))
        channels = self.backbone.channels[2:]
        self.image_neck = FpnLss(channels, read_fpn(Used(config["neck"], "neck"), channels))

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = self.backbone(images)
        return maps, self.image_neck(*maps[2:])


def backbone_of(oracle: Oracle) -> Backbone:
    net = Backbone(oracle.config)
    net.load_state_dict(bevdet_from_public(oracle.state()))
    return net.eval()


def backbone(oracle: Oracle) -> Iterator[Output]:
    net = backbone_of(oracle)
    swin = net.backbone
    layers = {
        "patch_embed": swin.patch_embed,
        "stage0": swin.stages[0].blocks[-1],
        "stage1": swin.stages[1].blocks[-1],
        "stage2_down": swin.stages[2].downsample,
    }
    with torch.no_grad(), recorded(layers) as inner:
        maps, neck = net(oracle["inputs/img"])
    for name, value in inner.items():
        key, tokens = f"inter/{name}", value.flatten(1, 2)
        every = 3 if name in ("patch_embed", "stage0") else 1
        yield Output(key, tokens[: _stored(oracle, key), ::every], MAPS)
    yield from _stages(oracle, "out", maps)
    yield Output("out/neck", neck, MAPS)


def backbone_of_odd_size(oracle: Oracle) -> Iterator[Output]:
    if "odd/img" in oracle:
        with torch.no_grad():
            yield from _stages(oracle, "odd", backbone_of(oracle).backbone(oracle["odd/img"]))


def _stages(oracle: Oracle, group: str, maps: list[Tensor]) -> Iterator[Output]:
    yield Output(f"{group}/c4", maps[2], MAPS)
    yield Output(f"{group}/c5", maps[3], MAPS)
    yield Output(f"{group}/stereo", maps[0][: _stored(oracle, f"{group}/stereo"), :, ::2, ::2], MAPS)


def _stored(oracle: Oracle, key: str) -> int | None:
    """How many images of it are stored."""
    return len(oracle.array(key)) if key in oracle else None


def neck_in_training(oracle: Oracle) -> Iterator[Output]:
    if "train/neck" not in oracle:
        return
    net = backbone_of(oracle)
    net.image_neck.train()
    with torch.no_grad():
        _, neck = net(oracle["inputs/img"])
    yield Output("train/neck", leading(neck, oracle, "train/neck"), MAPS)
    for name, value in net.image_neck.named_buffers():
        yield Output(f"train/{name}", value, Tolerance(of_max=1e-5, bf16=0.001))


def backbone_gradients(oracle: Oracle) -> Iterator[Output]:
    if "grad/total" not in oracle:
        return
    net, images = backbone_of(oracle), oracle["inputs/img"].requires_grad_()
    maps, neck = net(images)
    weighted = ((maps[2], "w_c4"), (maps[3], "w_c5"), (neck, "w_neck"))
    terms = [value * oracle[f"grad/{name}"] for value, name in weighted]
    total = sum(term.mean() for term in terms)
    total.backward()
    rounding = 1e-5 * sum(term.abs().mean().item() for term in terms)
    yield Output("grad/total", total, Tolerance(rounding, bf16=BF16_GRADIENTS))
    tolerance = Tolerance(of_max=GRADIENTS, bf16=BF16_GRADIENTS)
    yield Output("grad/img", leading(images.grad, oracle, "grad/img"), tolerance)
    yield Output("grad/img_norm", images.grad.norm(), Tolerance(relative=GRADIENTS, bf16=0.005))
    ours = {name: parameter.grad for name, parameter in net.named_parameters()}
    public = {name: ours[_ours(name)] for name in oracle.below("gradnorm/")}
    yield from norms(oracle, "gradnorm/", public, GRADIENTS, 0.04)
    for name in filter(public.__contains__, oracle.below("grad/")):
        yield Output(f"grad/{name}", public[name], tolerance)


def _ours(name: str) -> str:
    return next(iter(bevdet_from_public({name: torch.empty(0)})))


KINDS = (
    Kind(
        "bevdet_backbone",
        ("inputs/img", "out/c4", "out/c5"),
        ("sd/*", "inputs/*", "odd/img", "grad/w_*"),
        (backbone, backbone_of_odd_size, neck_in_training, backbone_gradients),
    ),
)
