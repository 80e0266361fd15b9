"""GeoMIM's pretraining as the public code configures it (YAML): the masked student, its view transform, the teacher.

Of a whole config `model` and the names of the classes are read: of the images their size, not how they are augmented.
The patch over which the target is normalised (18 cells) is no setting of the public code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.backbones.config import SwinConfig
from models.backbones.swin import Swin
from models.geomim.decoder import DecoderSpec
from models.geomim.model import GeoMIM, GeoMIMSpec
from models.geomim.view_transform import ViewTransform, ViewTransformSpec
from models.public.bevdet import read_bins, read_grid
from models.public.bevfusion import read_lidar
from models.public.norms import torchs_norm
from models.public.swin import read_swin
from models.public.used import UnreadableConfig, Used

_STRIDE = 16  # of the fused map: patches of 4 px, merged twice


@dataclass(frozen=True)
class ViewSpec:
    """A view transform with what it takes: dim channels of each decoder map, of images (H, W) px."""

    dim: int
    transform: ViewTransformSpec
    image_size: tuple[int, int]
    depth_weight: float

    def build(self) -> ViewTransform:
        """With weights drawn from torch's global generator."""
        return ViewTransform(self.dim, self.transform)


@dataclass(frozen=True)
class StudentSpec:
    """The masked Swin and its decoder."""

    backbone: SwinConfig
    decoder: DecoderSpec

    def build(self, view: ViewSpec, target_channels: int) -> GeoMIM:
        """The whole student, with weights drawn from torch's global generator."""
        heads = self.backbone.num_heads[2]
        spec = GeoMIMSpec(self.decoder, view.transform, heads, target_channels, depth_weight=view.depth_weight)
        return GeoMIM(Swin(self.backbone), spec)


@dataclass(frozen=True)
class PublicGeoMIM:
    """The masked student of a public pretraining, without its weights."""

    student: StudentSpec
    view: ViewSpec
    target_channels: int


def read_geomim(config: Mapping[str, Any]) -> PublicGeoMIM:
    """A whole config. Raises UnreadableConfig."""
    teacher = read_lidar(config)
    with Used(config.get("model", config), "model") as model:
        model.fixed("type", "BEVFusionGeoMIM")
        channels = model.integer("bev_feat_dim", 256)
        with model.section("encoders") as encoders:
            encoders.ignore({"lidar": "the teacher, read above"})
            with encoders.section("camera") as camera:
                student = read_student(camera.section("backbone"))
                view = read_view_transform(camera.section("vtransform"))
    if view.dim != student.decoder.width:
        raise UnreadableConfig(f"model.encoders.camera.vtransform.in_channels is {view.dim}, but decoder_dim is not")
    if channels != teacher.encoder.output_shape(teacher.grid.sparse_shape)[0]:
        raise UnreadableConfig(f"model.bev_feat_dim is {channels}, but the teacher's encoder makes another number")
    return PublicGeoMIM(student, view, channels)


def read_student(section: Used) -> StudentSpec:
    """SwinTransformerBEV: the Swin with the decoder's settings among its own."""
    with section:
        backbone = read_swin(section, (2, 3), "SwinTransformerBEV")
        decoder = DecoderSpec(
            section.integer("decoder_dim", 512),
            section.integer("decoder_num_heads", 16),
            section.integer("decoder_depth", 8),
            section.integer("pretrain_img_size", 224, least=32) // 32,
        )
        if decoder.depth % 4 or decoder.width % decoder.num_heads:
            raise UnreadableConfig(
                f"{section.at('decoder_depth')} is {decoder.depth} and decoder_dim {decoder.width} for "
                f"{decoder.num_heads} heads: only multiples of 4 blocks and of the heads are implemented here"
            )
        return StudentSpec(backbone, decoder)


def read_view_transform(section: Used) -> ViewSpec:
    """DepthLSSTransformGT, with the public code's rounding of points to cells."""
    with section:
        section.fixed("type", "DepthLSSTransformGT")
        section.fixed("downsample", 2, default=1)
        section.fixed("stride", _STRIDE, default=8)
        section.ignore({"ret_depth": "whether depth is learnt from: pretraining does"})
        torchs_norm(section)
        size = section.integers("image_size", 2)
        section.agrees("feature_size", [side // _STRIDE for side in size], f"image_size / {_STRIDE}")
        transform = ViewTransformSpec(
            read_bins(section, "dbound"),
            read_grid(section, ("xbound", "ybound", "zbound")),
            section.integer("out_channels"),
            downsample=2,
            truncate=True,
        )
        return ViewSpec(section.integer("in_channels"), transform, size, section.number("depth_loss_weight", 0.01))
