"""GeoMIM: half of the images in, the LiDAR teacher's BEV features out (arXiv 2303.11325)."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from batches.image_config import ImageConfig
from batches.mask_config import MaskConfig
from common.settings import Settings, external_file
from models.backbones.build import BackboneConfig
from tasks.engine.stage import StageName
from tasks.memory import camera_sizes, check_memory
from tasks.pretrain.lift_config import LiftConfig
from tasks.pretrain.method_config import MethodConfig


class DecoderSize(Settings):
    """Of the decoder, thrown away after pretraining."""

    width: int = Field(512, ge=4, multiple_of=4)
    num_heads: int = Field(16, ge=1)
    depth: int = Field(8, ge=4, multiple_of=4, description="Blocks of the semantic branch; geometry has half of them.")

    @model_validator(mode="after")
    def _heads_divide(self) -> "DecoderSize":
        if self.width % self.num_heads:
            raise ValueError(f"num_heads is {self.num_heads}, which does not divide the width {self.width}")
        return self


class DecoderConfig(DecoderSize):
    """The decoder, and the paper's ablations of it."""

    cross_view: bool = Field(True, description="Attention over image rows across the cameras.")
    geometry_branch: bool = Field(True, description="A branch of its own for depth.")
    camera_aware: bool = Field(True, description="Gate the geometry branch by the camera's parameters.")


class Config(MaskConfig, LiftConfig, MethodConfig):
    """Masked multi-view images in, the LiDAR teacher's BEV features out. Defaults are the original's."""

    name: Literal["geomim"] = "geomim"
    needs: ClassVar[tuple[StageName, ...]] = ("ingest", "teacher", "depth")
    entry: ClassVar[str] = "tasks.pretrain.geomim.method:GeoMIMPretraining"

    decoder: DecoderConfig = Field(default_factory=DecoderConfig)
    public_config: str | None = external_file(
        None,
        "The public config of a whole GeoMIM in `pretrain.init`, whose attention heads no shape tells: its YAML file. "
        "It must agree with ours.",
    )
    depth_sweeps: int = Field(9, ge=0, le=10, description="Previous LiDAR sweeps in the depth target.")
    reconstruction_weight: float = Field(1.0, ge=0, description="Of the BEV's loss; 0: depth is the only target.")
    depth_weight: float = Field(0.01, ge=0, description="Of the depth loss; 0: the BEV is the only target.")
    context: int = Field(80, ge=1, description="Channels lifted into the BEV.")
    height: tuple[float, float] = Field((-10.0, 10.0), description="Heights (m, LiDAR frame) that are lifted.")
    splat_ratio: Literal[1, 2] = Field(2, description="Splatted cells per cell of the teacher's grid, along each axis.")
    patch: int = Field(18, ge=1, description="Cells a side over which the target is normalised.")
    bev_flip: bool = Field(
        True, description="Mirror the scene at random along x and along y; exactly, if teacher.flips are cached."
    )

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        if self.reconstruction_weight == self.depth_weight == 0:
            raise ValueError("reconstruction_weight and depth_weight are both 0: there is nothing to learn")
        if self.height[0] >= self.height[1]:
            raise ValueError(f"height {self.height} must ascend")
        return self

    def check(self, image: ImageConfig, backbone: BackboneConfig, init: str | None) -> None:
        self.mask_grid(image.size, backbone.strides[-1])
        check_memory(camera_sizes(image.size, self.depth_bins, backbone.strides[2]))
        if self.public_config and init is None:
            raise ValueError("method.public_config describes the GeoMIM in pretrain.init: set that too")

    def check_caches(self, bev_cells: tuple[int, int] | None, depth_sweeps: int, camera_frames: int) -> None:
        shape = "x".join(map(str, bev_cells or ()))
        for axis, cells in zip("xy", bev_cells or ()):
            if cells % self.patch:
                raise ValueError(
                    f"pretrain.method.patch is {self.patch}, which does not divide the teacher's BEV of {shape} cells "
                    f"along {axis}: choose a divisor of {cells}, or another lidar.range or lidar.voxel_size"
                )
        if self.depth_sweeps > depth_sweeps:
            kept = f"depth.sweeps = {depth_sweeps}"
            raise ValueError(f"pretrain.method.depth_sweeps is {self.depth_sweeps}, but the cache keeps {kept}")
