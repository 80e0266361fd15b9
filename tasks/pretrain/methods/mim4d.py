"""MIM4D: masked video in, colour and depth of its frames out, rendered (arXiv 2403.08760); no teacher."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from batches.image_config import ImageConfig
from batches.mask_config import mask_grid
from common.settings import Settings
from models.backbones.build import BackboneConfig
from models.backbones.config import ConvNeXtConfig, ResNetConfig, SwinConfig
from tasks.memory import FLOAT, camera_sizes, check_memory
from tasks.pretrain.lift_config import LiftConfig
from tasks.pretrain.method_config import MethodConfig


class VolumeConfig(Settings):
    """The volume that every frame is lifted to, about the LiDAR of its own time."""

    range: tuple[float, float, float, float, float, float] = Field(
        (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0), description="x, y, z minimum, then maximum (m, LiDAR frame)."
    )
    cell: float = Field(0.6, gt=0, description="Side of a cell seen from above (m).")
    heights: int = Field(5, ge=1, description="Slabs between the two heights.")
    channels: int = Field(32, ge=1, description="That are rendered.")

    @property
    def low(self) -> tuple[float, float, float]:
        """Corner x, y, z (m)."""
        return self.range[:3]

    @property
    def high(self) -> tuple[float, float, float]:
        """The opposite corner."""
        return self.range[3:]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells Z, Y, X."""
        x, y = (round((self.range[axis + 3] - self.range[axis]) / self.cell) for axis in (0, 1))
        return self.heights, y, x

    @model_validator(mode="after")
    def _fits(self) -> "VolumeConfig":
        if any(low >= high for low, high in zip(self.low, self.high)):
            raise ValueError(f"range {self.range} must be x, y, z minimum, then maximum")
        for axis, cells in zip("xy", self.shape[:0:-1]):
            extent = self.high["xy".index(axis)] - self.low["xy".index(axis)]
            if cells < 1 or abs(cells * self.cell - extent) > 1e-6:
                raise ValueError(f"cell {self.cell} does not divide the {extent:g} m of range along {axis}")
        return self


class TemporalConfig(Settings):
    """What rebuilds a frame from the others; thrown away after pretraining."""

    width: int = Field(128, ge=4, multiple_of=4, description="Channels of the branch of the nearest frame.")
    reduction: int = Field(2, ge=1, description="The branch of all frames has 1 / reduction as many.")
    short_heads: int = Field(4, ge=1, description="Attention heads of the first branch.")
    long_heads: int = Field(2, ge=1, description="Of the second.")
    layers: int = Field(2, ge=1, description="Of each.")
    short_ffn: int = Field(256, ge=1, description="Hidden channels of the first branch's MLPs.")
    long_ffn: int = Field(128, ge=1, description="Of the second's.")

    @model_validator(mode="after")
    def _divides(self) -> "TemporalConfig":
        if self.width % (4 * self.reduction):
            raise ValueError(f"width {self.width} must be a multiple of 4 * reduction, {4 * self.reduction}")
        for heads, width in ((self.short_heads, self.width), (self.long_heads, self.width // self.reduction)):
            if width % heads:
                raise ValueError(f"{heads} heads do not divide {width} channels")
        return self


class RenderConfig(Settings):
    """Rays, and where along them the field is asked."""

    rays: int = Field(512, ge=1, description="Rays of each camera and rendered frame, through LiDAR points first.")
    samples: int = Field(72, ge=2, description="Places along a ray, evenly spread.")
    importance: int = Field(24, ge=1, description="Places more, where the first found something.")
    rgb_weight: float = Field(10.0, ge=0, description="Of the colours' loss; 0: depth is the only target.")
    depth_weight: float = Field(
        10.0, ge=0, description="Of the depths', in units of the range's largest coordinate; 0: colour is the only one."
    )

    @model_validator(mode="after")
    def _learns(self) -> "RenderConfig":
        if self.rgb_weight == self.depth_weight == 0:
            raise ValueError("rgb_weight and depth_weight are both 0: there is nothing to learn")
        return self


class Config(LiftConfig, MethodConfig):
    """Masked video in, what its frames look like and how far away it is out. With `frames: 1` UniPAD (2310.08370)."""

    name: Literal["mim4d"] = "mim4d"
    entry: ClassVar[str] = "tasks.pretrain.mim4d.method:MIM4DPretraining"

    frames: int = Field(3, ge=1, le=8, description="The key frame and the camera frames (12 Hz) before it; 1: UniPAD.")
    mask_ratio: float = Field(0.3, ge=0, lt=1, description="Share hidden of every image.")
    mask_cell: int = Field(32, ge=1, description="Pixels a side of what is hidden as one.")
    width: int = Field(256, ge=1, description="Channels of the map that is lifted.")
    context: int = Field(128, ge=1, description="Channels lifted into the volume.")
    volume: VolumeConfig = Field(default_factory=VolumeConfig)
    temporal: TemporalConfig = Field(default_factory=TemporalConfig)
    render: RenderConfig = Field(default_factory=RenderConfig)

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        for name, width in (("width", self.width), ("volume.channels", self.volume.channels)):
            if width > 8 and width % 8:
                raise ValueError(f"{name} is {width}: it must be a multiple of 8")
        return self

    def check(self, image: ImageConfig, backbone: BackboneConfig, init: str | None) -> None:
        mask_grid(self.mask_cell, image.size, backbone.strides[-1])  # raises
        z, y, x = self.volume.shape
        lifted = f"method.volume of {z} x {y:,} x {x:,} cells"
        check_memory(
            camera_sizes(image.size, self.depth_bins, backbone.strides[2])
            | {lifted: self.frames * FLOAT * float(self.context) * z * y * x}
        )
        self.check_backbone(backbone)

    def check_backbone(self, backbone: BackboneConfig) -> SwinConfig | ConvNeXtConfig:
        if isinstance(backbone, ResNetConfig):
            raise ValueError(
                f"backbone.name is {backbone.name}, which looks at hidden pixels: mim4d pretrains a swin or a convnext"
            )
        return backbone

    def check_caches(self, bev_cells: tuple[int, int] | None, depth_sweeps: int, camera_frames: int) -> None:
        if self.frames - 1 > camera_frames:
            raise ValueError(
                f"pretrain.method.frames is {self.frames}, but the index keeps ingest.frames = {camera_frames} earlier "
                f"frames of each camera: set ingest.frames to {self.frames - 1}"
            )
