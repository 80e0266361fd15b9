"""The files of configs/ablations: each is the published recipe but for what its name says, and can be trained."""

import pytest
import torch

from models.geomim.model import GeoMIM
from models.masking import draw_halves
from one_frame import one_frame
from tasks.engine.config import PRESETS, PipelineConfig, load_config, merged
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.geomim.model import build_model

CHANGES = {
    "depth-only": {"pretrain.method.reconstruction_weight": 0},
    "mask-75": {"pretrain.method.mask_ratio": 0.75},
    "no-camera-awareness": {"pretrain.method.decoder.camera_aware": False},
    "no-cross-view": {"pretrain.method.decoder.cross_view": False},
    "no-geometry-branch": {"pretrain.method.decoder.geometry_branch": False},
    "semantic-only": {"pretrain.method.depth_weight": 0},
    "teacher-512": {"teacher.output": "neck", "teacher.encoding": "dense"},
}
TINY = {
    "backbone": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4), "window_sizes": (8, 4, 4, 2)},
    "image": {"size": (64, 96)},
    "method": {
        "name": "geomim",
        "decoder": {"width": 16, "num_heads": 2, "depth": 4},
        "depth_bins": (1.0, 11.0, 1.0),
        "context": 4,
        "patch": 4,
    },
}


def fields(section: dict, path: str = "") -> dict:
    """Dotted name -> value."""
    out = {}
    for name, value in section.items():
        out |= fields(value, f"{path}{name}.") if isinstance(value, dict) else {path + name: value}
    return out


def load(name: str) -> PipelineConfig:
    return load_config(None, [f"preset={name}"])


def test_there_is_no_other():
    assert sorted(path.stem for path in (PRESETS / "ablations").glob("*.yaml")) == sorted(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
def test_it_differs_in_what_it_says(name):
    base, ablation = (fields(load(n).model_dump()) for n in ("geomim-swin-b", f"ablations/{name}"))
    changed = {field: value for field, value in ablation.items() if base[field] != value and field != "preset"}
    assert changed == CHANGES[name]
    as_file = load_config(PRESETS / "ablations" / f"{name}.yaml")
    assert fields(as_file.model_dump()) | {"preset": None} == ablation | {"preset": None}


@pytest.mark.parametrize("name", CHANGES)
def test_it_makes_a_training_step(name):
    nested: dict = {}
    for field, value in CHANGES[name].items():
        section, *path = field.split(".")
        for part in reversed(path):
            value = {part: value}
        nested = merged(nested, {section: value})
    config = PretrainConfig(**merged(TINY, nested.get("pretrain", {})))
    channels = 6 if name == "teacher-512" else 3

    torch.manual_seed(0)
    model = build_model(GeoMIM, config, config.method, channels, (-8.0, -8.0, -5.0, 8.0, 8.0, 3.0), 1.0).train()
    names = " ".join(n for n, _ in model.named_parameters())
    assert ("cross" in names) == (name != "no-cross-view")
    assert ("geometry_blocks" in names) == (name != "no-geometry-branch")
    assert ("camera_gate" in names) == (name not in ("no-geometry-branch", "no-camera-awareness"))

    views = 2
    intrinsics = torch.tensor([[50.0, 0, 48], [0, 50, 32], [0, 0, 1]]).expand(1, views, 3, 3)
    pose = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]).expand(1, views, 4, 4)
    cameras = one_frame(intrinsics, torch.eye(4).expand(1, views, 4, 4), pose, pose)
    groups = draw_halves(
        1, config.method.mask_grid(config.image.size, 32), torch.Generator().manual_seed(0), config.method.mask_ratio
    )
    assert (groups < 0).any() == (name == "mask-75")

    made = model(torch.randn(1, views, 3, 64, 96), model.geometry(cameras, (64, 96)), groups)
    losses = model.losses(made, torch.randn(1, channels, 16, 16), torch.rand(1, views, 4, 6) * 10 + 1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    loss = config.method.reconstruction_weight * losses.reconstruction + config.method.depth_weight * losses.depth
    loss.backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert {"backbone.patch_embed.projection.weight", "view_transform.depth_net.6.weight"} <= moved
    assert ("head.weight" in moved) == (name != "depth-only")
