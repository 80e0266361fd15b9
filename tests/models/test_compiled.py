"""Every network that looks at cameras is one graph to torch.compile, in training mode, and learns alike.

The back end `eager` runs the graph's own operators: what is asked is whether there is one, not what is made of it.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.center_head import CenterPointHead
from models.center_spec import CenterHeadSpec
from models.geomim.decoder import Decoder, DecoderSpec
from models.geomim.pixels import PixelMIM
from models.masking import draw_halves
from models.perspective import PerspectiveDetector
from small_detectors import SIZE, VARIANTS, rig, small_detector
from small_geomim import tiny_inputs, tiny_model
from small_mim4d import SIZE as CLIP_SIZE
from small_mim4d import clip_of_noise, looking_around, small_mim4d
from small_swin import small_swin
from tasks.finetune.task import WithHead

Case = tuple[nn.Module, tuple[Any, ...]]


def geomim(**how: Any) -> Case:
    images, cameras, generator = tiny_inputs()
    model = tiny_model(**how)
    return model, (images, model.geometry(cameras, (64, 64)), draw_halves(6, (2, 2), generator, shared=False))


def pixels() -> Case:
    decoder = Decoder(32, DecoderSpec(16, 2, 4, cross_view=False, geometry_branch=False))
    model = PixelMIM(small_swin(windows=(8, 4, 4, 2), drop_path=0.0), decoder, 2)
    return model, (torch.randn(3, 3, 64, 96), draw_halves(3, (2, 3), torch.Generator().manual_seed(0), shared=False))


def perspective() -> Case:
    return PerspectiveDetector(small_swin(), 3, 8), (torch.randn(2, 3, 64, 96),)


def mim4d(backbone: str, frames: int) -> Case:
    model = small_mim4d(backbone, frames)
    images, visible, targets, rays = clip_of_noise(frames=frames)
    return model, (images, visible, model.geometry(looking_around(1, frames), CLIP_SIZE), targets, rays)


def detector(variant: str) -> Case:
    model = WithHead(
        small_detector(
            CenterPointHead(CenterHeadSpec(8, (-8, -8, -5, 8, 8, 3), (1.0, 1.0), width=8, branch_width=8)),
            **VARIANTS[variant],
        )
    )
    frames = model.detector.input_frames
    images = torch.randn(1, frames, 2, 3, *SIZE)
    return model, (images, model.detector.geometry(rig(1, frames, 2)), True)


CASES: dict[str, Callable[[], Case]] = {
    "geomim": geomim,
    "pixels": pixels,
    "perspective": perspective,
    "mim4d": lambda: mim4d("convnext", 3),
    "unipad": lambda: mim4d("swin", 1),
    "two frames, aligned": lambda: detector("aligned"),
    "three frames, stereo": lambda: detector("long stereo"),  # with all that BEVDepth has
}


def tensors(made: Any) -> Iterator[Tensor]:
    """All of them, in the order in which they lie."""
    if isinstance(made, Tensor):
        yield made
    elif isinstance(made, dict):
        yield from tensors(list(made.values()))
    elif made is not None:
        for part in made:
            yield from tensors(part)


def learnt(model: nn.Module, call: Callable[..., Any], inputs: tuple[Any, ...]) -> list[Tensor]:
    """A step's outputs and its gradients."""
    made = [out for out in tensors(call(*inputs)) if out.is_floating_point()]
    torch.stack([(out * torch.linspace(0, 1, out.numel()).view(out.shape)).mean() for out in made]).sum().backward()
    return [*made, *(p.grad for p in model.parameters() if p.grad is not None)]


def doubled(value: Any) -> Any:
    """The same with its floats in float64, wherever they lie: in float32 a sign that rounding turns, where few values
    make a norm's statistics, moves a gradient by half a percent."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, tuple):
        return type(value)(*map(doubled, value)) if hasattr(value, "_fields") else tuple(map(doubled, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: doubled(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
        return dataclasses.replace(value, **fields)
    return value


FLOAT32 = ("three frames, stereo",)  # whose costs are float32 whatever comes


@pytest.mark.parametrize("case", CASES)
def test_a_network_is_one_graph(case):
    torch.manual_seed(0)
    model, inputs = CASES[case]()
    if case not in FLOAT32:
        model, inputs = model.double(), doubled(inputs)
    other = copy.deepcopy(model.train())
    torch.compiler.reset()
    compiled = torch.compile(other, fullgraph=True, backend="eager", dynamic=False)
    torch.manual_seed(1)
    wanted = learnt(model, model, inputs)
    torch.manual_seed(1)
    found = learnt(other, compiled, inputs)
    assert len(wanted) == len(found) > 10
    largest = max(float(gradient.detach().abs().max()) for gradient in wanted[1:])
    near = 1e-2 if case in FLOAT32 else 1e-9
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right, rtol=near, atol=near * largest)
