"""The BEVDet family, GeoMIM's finetuned detectors among them, as the public code configures it.

Of a whole config `model`, `data_config`, `multi_adj_frame_id_cfg` and the names of the classes are read; what else
stands at its top are the file's own variables, or says how to train. Settings of training inside `model` are in the
lists below, each with its reason: a public detector is read to be evaluated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from models.backbones.config import SwinConfig
from models.backbones.swin import Swin
from models.bevdet.detector import BevDet, BevDetSpec
from models.bevdet.encoder import ResidualSpec
from models.bevdet.necks import FpnSpec
from models.center_head import CenterPointHead
from models.center_spec import CenterHeadSpec
from models.depth_bins import DepthBins
from models.lift_splat import BevGrid
from models.public.center_head import read_center_head
from models.public.classes import check_classes
from models.public.images import ImageNumbers, read_bevdet_images
from models.public.norms import BEGINNING, torchs_norm
from models.public.swin import read_swin
from models.public.used import UnreadableConfig, Used

# Frames beside the key frame, and whether depth is told by stereo.
_DETECTORS = {
    "BEVDet": (False, False),
    "BEVDet4D": (True, False),
    "BEVDepth4D": (True, False),
    "BEVStereo4D": (True, True),
}


@dataclass(frozen=True)
class PublicBevDet:
    """A public detector: everything of it but its weights. images: None where the config has no `data_config`."""

    backbone: SwinConfig
    detector: BevDetSpec
    head: CenterHeadSpec
    images: ImageNumbers | None
    depth_weight: float

    def build(self) -> BevDet:
        """The network, with weights drawn from torch's global generator."""
        return BevDet(Swin(self.backbone), CenterPointHead(self.head), self.detector)


def read_bevdet(config: Mapping[str, Any]) -> PublicBevDet:
    """The detector of a whole config. Raises UnreadableConfig."""
    check_classes(config)
    images = read_bevdet_images(config["data_config"]) if "data_config" in config else None
    with Used(config.get("model", config), "model") as model:
        model.ignore(BEGINNING)
        view = read_view(model.section("img_view_transformer"))
        # As it is handed to the class itself, the section has no type any more.
        kind = model.value("type", "BEVStereo4D" if view.stereo else "BEVDet4D" if "num_adj" in model else "BEVDet")
        if kind not in tuple(_DETECTORS):  # a list or section has no place in a dict
            raise UnreadableConfig(f"model.type is {kind!r}: only {', '.join(_DETECTORS)} are implemented here")
        temporal, stereo = _DETECTORS[kind]
        if view.stereo != stereo:
            raise UnreadableConfig(f"model.type is {kind!r}, but img_view_transformer's stereo is {view.stereo}")
        if images and images.size != view.image_size:
            raise UnreadableConfig(f"data_config.input_size is {images.size}, but the view's is {view.image_size}")
        with model.section("img_backbone") as swin:
            backbone = read_swin(swin, (1, 2, 3), "SwinTransformerBEVFT")
        maps = backbone.channels[2:]
        image_neck = read_fpn(model.section("img_neck"), maps, view.in_channels, "img_view_transformer.in_channels")
        frames, pre_blocks, align = 1, 2, False
        if temporal:
            model.fixed("with_prev", True)
            frames = 1 + model.integer("num_adj", 1)
            _check_frames(config, frames)
            align = model.flag("align_after_view_transfromation", False)
            pre_blocks = _pre_process(model, view.context)
        encoder = read_resnet(model.section("img_bev_encoder_backbone"), view.context * frames)
        head = _head(model)
        after = model.section("img_bev_encoder_neck")
        neck = read_fpn(after, encoder.widths, head.in_channels, "pts_bbox_head.in_channels")
        try:
            spec = view.detector(image_neck, encoder, neck, frames, pre_blocks, align)
        except ValueError as error:
            raise UnreadableConfig(f"model: {error}") from None
        stride = backbone.strides[2] // image_neck.extra_scale
        if stride != view.downsample:
            raise UnreadableConfig(
                f"model.img_view_transformer.downsample is {view.downsample}, but features have stride {stride}"
            )
        _check_map(spec.grid, head)
        return PublicBevDet(backbone, spec, head, images, view.depth_weight)


def _check_frames(config: Mapping[str, Any], frames: int) -> None:
    """The frames beside the key frame must be those just before it; stereo's loader adds the next one itself."""
    key = "multi_adj_frame_id_cfg"
    if key in config:
        told = Used(config, "").integers(key, least=0)
        if len(told) not in (2, 3) or 0 in told[2:] or range(*told) != range(1, frames):
            raise UnreadableConfig(
                f"{key} is {list(told)}: only [1, {frames}, 1], the {frames - 1} just before it, is implemented here"
            )


def _pre_process(model: Used, context: int) -> int:
    if model.value("pre_process", None) is None:
        raise UnreadableConfig("model.pre_process is missing: without it only one frame is implemented here")
    spec = read_resnet(model.section("pre_process"), context)
    if (spec.widths, spec.strides) != ((context,), (1,)):
        raise UnreadableConfig(f"model.pre_process is {spec}: only one stage of {context} channels, stride 1, is known")
    return spec.blocks[0]


def _head(model: Used) -> CenterHeadSpec:
    with model.section("train_cfg") as train, model.section("test_cfg") as test:
        return read_center_head(model.section("pts_bbox_head"), train.section("pts"), test.section("pts"))


def _check_map(grid: BevGrid, head: CenterHeadSpec) -> None:
    """The head's cells must be the lifted map's."""
    lows, highs = (grid.x[0], grid.y[0]), (grid.x[1], grid.y[1])
    ours, theirs = (*lows, *highs, grid.cell, grid.cell), (*head.bev_range[:2], *head.bev_range[3:5], *head.cell_size)
    if any(abs(a - b) > 1e-4 for a, b in zip(ours, theirs)):
        raise UnreadableConfig(
            f"img_view_transformer.grid_config says x, y from {lows} to {highs} by {grid.cell}, and pts_bbox_head from "
            f"{head.bev_range[:2]} to {head.bev_range[3:5]} by {head.cell_size}: they must agree"
        )


def read_fpn(section: Used, maps: Sequence[int], out: int | None = None, reader: str = "") -> FpnSpec:
    """FPN_LSS on maps of so many channels. out: the channels that `reader` takes."""
    with section:
        section.fixed("type", "FPN_LSS")
        section.fixed("lateral", None)
        section.fixed("use_input_conv", False)
        torchs_norm(section)
        inputs = section.integers("input_feature_index", 2, (0, 2), least=0)
        if not all(0 <= index < len(maps) for index in inputs):
            raise UnreadableConfig(f"{section.at('input_feature_index')} is {inputs}, and there are {len(maps)} maps")
        section.agrees("in_channels", sum(maps[index] for index in inputs), "the sum of its maps' channels")
        if out is not None:
            section.agrees("out_channels", out, reader)
        extra = section.value("extra_upsample", 2)
        if extra == 1:  # any number means layers more in the public code; ours has none where the size stays
            raise UnreadableConfig(
                f"{section.at('extra_upsample')} is 1: only null (no more layers) and 2 or more are implemented here"
            )
        return FpnSpec(
            section.integer("out_channels"),
            inputs,
            section.integer("scale_factor", 4),
            1 if extra is None else section.integer("extra_upsample", 2),
        )


def read_resnet(section: Used, channels: int) -> ResidualSpec:
    """CustomResNet on a map of so many channels."""
    with section:
        section.fixed("type", "CustomResNet")
        section.fixed("block_type", "Basic")
        section.ignore({"with_cp": "memory of training"})
        torchs_norm(section)
        section.agrees("numC_input", channels, "what comes in")
        blocks = section.integers("num_layer", default=(2, 2, 2))
        stages = tuple(range(len(blocks)))
        if section.value("backbone_output_ids", None) is not None:
            section.fixed("backbone_output_ids", stages)
        doubled = [channels * 2 ** (stage + 1) for stage in stages]
        widths = section.value("num_channels", None)
        try:
            return ResidualSpec(
                tuple(doubled) if widths is None else section.integers("num_channels"),
                blocks,
                section.integers("stride", default=(2, 2, 2)),
            )
        except ValueError as error:
            raise UnreadableConfig(f"{section.at('num_layer')}: {error}") from None


@dataclass(frozen=True)
class View:
    """What `img_view_transformer` says of a detector."""

    grid: BevGrid
    depth_bins: DepthBins
    image_size: tuple[int, int]
    downsample: int
    in_channels: int
    context: int
    camera_aware: bool
    aspp_width: int
    stereo: bool
    stereo_bias: float
    depth_weight: float

    def detector(
        self,
        image_neck: FpnSpec,
        bev_encoder: ResidualSpec,
        bev_neck: FpnSpec,
        frames: int,
        pre_blocks: int,
        align_after_splat: bool,
    ) -> BevDetSpec:
        """The whole detector's, with the released detectors' quirks. Raises ValueError where parts do not fit."""
        return BevDetSpec(
            self.grid,
            self.depth_bins,
            self.image_size,
            image_neck,
            self.context,
            bev_encoder,
            bev_neck,
            frames,
            pre_blocks,
            self.camera_aware,
            self.aspp_width,
            self.stereo,
            self.stereo_bias,
            align_after_splat,
            truncate_cells=True,
            align_at_corners=True,
        )


def read_view(section: Used) -> View:
    """LSSViewTransformer, ...BEVDepth and ...BEVStereo."""
    with section:
        kinds = ("LSSViewTransformer", "LSSViewTransformerBEVDepth", "LSSViewTransformerBEVStereo")
        kind = section.value("type", kinds["depthnet_cfg" in section])
        if kind not in kinds:
            raise UnreadableConfig(f"{section.at('type')} is {kind!r}: only {', '.join(kinds)} are implemented here")
        section.ignore({"accelerate": "the same numbers, computed once"})
        section.fixed("collapse_z", True)
        with section.section("grid_config") as grid_config:
            spacing: Literal["even", "log"] = "log" if section.flag("sid", False) else "even"
            grid, bins = read_grid(grid_config), read_bins(grid_config, "depth", spacing)
        in_channels, camera_aware = section.integer("in_channels", 512), kind != kinds[0]
        aspp_width, stereo, bias, weight = in_channels, False, 0.0, 0.0
        if camera_aware:
            weight = section.number("loss_depth_weight", 3.0)
            with section.section("depthnet_cfg", {}) as net:
                net.fixed("use_dcn", False, default=True)
                net.fixed("use_aspp", True)
                net.ignore({"with_cp": "memory of training"})
                same = net.value("aspp_mid_channels", -1) == -1
                aspp_width = in_channels if same else net.integer("aspp_mid_channels")
                stereo, bias = net.flag("stereo", False), net.number("bias", 0.0)
        return View(
            grid,
            bins,
            section.integers("input_size", 2),
            section.integer("downsample", 16),
            in_channels,
            section.integer("out_channels", 64),
            camera_aware,
            aspp_width,
            stereo,
            bias,
            weight,
        )


def read_grid(section: Used, names: tuple[str, str, str] = ("x", "y", "z")) -> BevGrid:
    """Square cells of one height slab, of three lists [low, high, step]."""
    x, y, z = (section.span(name) for name in names)
    if x[2] != y[2]:
        raise UnreadableConfig(
            f"{section.at(names[0])} has cells of {x[2]} m and {names[1]} of {y[2]} m: only square ones are implemented"
        )
    if abs((z[1] - z[0]) / z[2] - 1) > 1e-6:
        bins = (z[1] - z[0]) / z[2]
        raise UnreadableConfig(
            f"{section.at(names[2])} is {list(z)}, {bins:g} height bins: only one is implemented here"
        )
    return BevGrid(x[:2], y[:2], z[:2], x[2])


def read_bins(section: Used, key: str, spacing: Literal["even", "log"] = "even") -> DepthBins:
    """Depths before the camera, two bins at least."""
    bins = DepthBins(*section.span(key), spacing)
    if bins.low <= 0 or bins.count < 2 or (spacing == "log" and bins.high - 1 <= bins.low):
        raise UnreadableConfig(f"{section.at(key)} has no two depth bins before the camera: {list(section.span(key))}")
    return bins
