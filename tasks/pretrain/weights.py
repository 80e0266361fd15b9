"""Pretraining's weights from and for other people's code: what `pretrain.init` reads and `geomim export` writes."""

import io
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from common.errors import UserError
from models.backbones.build import BackboneConfig, build_backbone
from models.backbones.config import SwinConfig, published
from models.depth_bins import DepthBins
from models.layouts import (
    Checkpoint,
    WeightsMismatch,
    convnext_to_mmpretrain,
    convnext_to_original,
    convnext_to_timm,
    convnext_to_torchvision,
    convnext_to_uvtr,
    fill_backbone,
    fill_geomim,
    geomim_to_original,
    grouped,
    network_sizes,
    original_constants,
    read_layout,
    swin_to_mmdet,
    swin_to_original,
    swin_to_timm,
    with_prefix,
    without_prefix,
)
from models.mim4d.layout import fill_mim4d
from models.mim4d.network import MIM4D
from storage.artifact import Artifact
from storage.atomic import write_bytes
from storage.bev import BevReader
from storage.manifest import read_manifest
from tasks.checkpoints import read_tensors
from tasks.engine.config import explain
from tasks.engine.integrity import check_file
from tasks.pretrain.geomim.model import splat_grid

# How the backbone is written, from our names.
BACKBONE_LAYOUTS: dict[str, dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]]] = {
    "swin": {
        "geomim": dict,
        "mmdet": swin_to_mmdet,
        "bevdet": lambda state: with_prefix(swin_to_mmdet(state), "backbone."),
        "swin": swin_to_original,
        "timm": swin_to_timm,
    },
    "convnext": {
        "geomim": dict,
        "mmdet": convnext_to_mmpretrain,
        "bevdet": lambda state: with_prefix(convnext_to_mmpretrain(state), "backbone."),
        "timm": convnext_to_timm,
        "torchvision": convnext_to_torchvision,
        "convnext": convnext_to_original,
        "uvtr": lambda state: with_prefix(convnext_to_uvtr(state), "img_backbone."),
    },
    "resnet": {
        "geomim": dict,
        "mmdet": dict,
        "bevdet": lambda state: with_prefix(state, "backbone."),
        "timm": dict,
        "torchvision": dict,
    },
}
ORIGINAL = "original"  # the layout that holds the whole model


def initialise(model: nn.Module, path: Path) -> str:
    """Fill a freshly built model in place from a checkpoint in any known layout; what was done, in a few lines.

    A GeoMIM pretraining checkpoint (the original's or ours) fills all of a GeoMIM, any other the backbone, MixMAE's
    also the decoder's blocks; of a MIM4D its released files fill backbone, temporal decoder and field. Raises
    UserError, and changes nothing, where tensors do not fit.
    """
    try:
        checkpoint = read_layout(read_tensors(path))
        filled = (fill_mim4d if isinstance(model, MIM4D) else fill_geomim)(model, checkpoint)
    except WeightsMismatch as error:
        remedy = "set the config to its sizes, or begin with its backbone alone (`geomim export`)"
        raise UserError(f"pretrain.init: {path}: does not fit the model: {error}; {remedy}") from None
    return f"pretrain.init: {path.name}, {checkpoint.layout} layout\n{filled}"


def export(source: Path, out: Path, layout: str) -> str:
    """Write a backbone, or for ORIGINAL the whole model, in a layout; what is in it and what is not, in a few lines.

    source: a pretrain artifact's folder, or a file in any layout. out: .safetensors, or .pth for torch's format.
    """
    if out.suffix not in (".safetensors", ".pth", ".pt"):
        raise UserError(f"{out}: the name must end in .safetensors, .pth or .pt, which chooses the format")
    if out.exists():
        raise UserError(f"{out}: exists; remove it or choose another name")
    file = source
    if source.is_dir():
        file = source / ("model.safetensors" if layout == ORIGINAL else "backbone.safetensors")
        if not file.is_file():
            raise UserError(
                f"{source}: holds no {file.name}; name the folder of a finished pretrain artifact, or a file"
            )
    check_file(file, f"{out} would hold the weights of {source.name}")
    checkpoint, config = _read_whole_backbone(file)
    without = ""
    if layout == ORIGINAL:
        if not checkpoint.whole:
            raise UserError(f"{file}: holds a backbone alone, and {ORIGINAL} is the whole model: name its folder")
        constants = _view_transform_constants(source, config.strides[2])
        rendering = [name for name in checkpoint.weights if name.startswith("video.")]
        state = geomim_to_original({n: w for n, w in checkpoint.weights.items() if n not in rendering}) | constants
        if not constants:
            without = "vtransform's dx, bx, nx and frustum, which the original makes from its config"
        if rendering:
            without = " and ".join(filter(None, [without, f"{grouped(rendering)}, which it does not have"]))
    else:
        backbone = {name: value for name, value in checkpoint.weights.items() if name.startswith("backbone.")}
        layouts = BACKBONE_LAYOUTS[config.name]
        if layout not in layouts:
            raise UserError(
                f"{layout} is no layout of a {config.name}, which {file} holds: choose {', '.join(layouts)}"
            )
        state = layouts[layout](without_prefix(backbone, "backbone."))
        back = read_layout(state).weights
        if lost := grouped(name for name in backbone if name not in back):
            without = f"{lost}, which have no place there"
    _write(out, state, "model" if layout == "swin" else "state_dict")
    lines = [
        f"{out}: {len(state)} tensors in {layout} layout",
        f"  {type(config).__name__.removesuffix('Config')}: " + ", ".join(f"{n} {v}" for n, v in config if n != "name"),
        *([f"  without {without}"] if without else []),
    ]
    return "\n".join(lines)


def _read_whole_backbone(file: Path) -> tuple[Checkpoint, BackboneConfig]:
    """A file's tensors and its backbone's config. Raises UserError where they do not make a whole one."""
    try:
        checkpoint = read_layout(read_tensors(file))
        sizes = network_sizes(without_prefix(checkpoint.weights, "backbone."))
        config = SwinConfig(**sizes) if sizes["name"] == "swin" else published(**sizes)
        if config is None:
            raise UserError(f"{file}: holds a {sizes['name']} of no published size: {sizes}")
        lacking = fill_backbone(build_backbone(config), checkpoint).left
    except WeightsMismatch as error:
        raise UserError(f"{file}: holds no whole backbone: {error}") from None
    except ValidationError as error:
        raise UserError(f"{file}: holds no backbone like GeoMIM's: {explain(error, SwinConfig)}") from None
    if lacking:
        raise UserError(f"{file}: holds no backbone like GeoMIM's: {grouped(lacking)} missing; pretrain from it first")
    return checkpoint, config


def _view_transform_constants(source: Path, stride: int) -> dict[str, Tensor]:
    """The geometry that the original keeps in its checkpoints, from an artifact's config and its teacher's grid; empty
    where `source` is a file, or the teacher's artifact is not beside it."""
    manifest = read_manifest(source)
    if manifest is None:
        return {}
    config = manifest.recipe.config
    method = config.get("method", config)  # an earlier version's has the fields themselves
    stage, key = manifest.inputs()["teacher"]
    teacher = Artifact(source.resolve().parents[1], stage, key)
    try:
        bev = BevReader(teacher.path / "bev.zarr")
    except FileNotFoundError:
        return {}
    grid = splat_grid(method["height"], method["splat_ratio"], bev.attributes.point_range, bev.attributes.cell_size[0])
    return original_constants(grid, DepthBins(*method["depth_bins"]), tuple(config["image"]["size"]), stride)


def _write(out: Path, state: dict[str, Tensor], key: str) -> None:
    """As safetensors, or in torch's format below `key`, by the suffix."""
    if out.suffix == ".safetensors":
        data = safetensors.torch.save(state)
    else:
        file = io.BytesIO()
        torch.save({key: state}, file)
        data = file.getvalue()
    try:
        write_bytes(out, data)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
