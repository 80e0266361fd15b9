"""GeoMIM's and MIM4D's losses in one run, on one backbone and one lift."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from batches.image_config import ImageConfig
from models.backbones.build import BackboneConfig
from models.backbones.config import SwinConfig
from tasks.engine.stage import StageName
from tasks.pretrain.method_config import MethodConfig
from tasks.pretrain.methods.geomim import Config as GeoMIMConfig
from tasks.pretrain.methods.mim4d import Config as MIM4DConfig

LIFT = ("depth_bins", "width", "context")  # of MIM4D's own lift, which is GeoMIM's here


class Config(MethodConfig):
    """Both methods, each with a weight. What is lifted, and by which network, is GeoMIM's; all else is each one's."""

    name: Literal["joint"] = "joint"
    needs: ClassVar[tuple[StageName, ...]] = ("ingest", "teacher", "depth")
    entry: ClassVar[str] = "tasks.pretrain.mim4d.joint:JointPretraining"

    geomim: GeoMIMConfig = Field(default_factory=GeoMIMConfig)
    mim4d: MIM4DConfig = Field(default_factory=MIM4DConfig)
    geomim_weight: float = Field(1.0, gt=0, description="Of GeoMIM's losses.")
    mim4d_weight: float = Field(1.0, gt=0, description="Of MIM4D's.")

    @model_validator(mode="after")
    def _one_lift(self) -> "Config":
        for name in LIFT:
            if (
                name in self.mim4d.model_fields_set
                and getattr(self.mim4d, name) != MIM4DConfig.model_fields[name].default
            ):
                raise ValueError(f"mim4d.{name} is of a lift that is not there: with GeoMIM it is geomim's own")
        return self

    def check(self, image: ImageConfig, backbone: BackboneConfig, init: str | None) -> None:
        self.geomim.check(image, backbone, init)
        self.mim4d.check(image, backbone, init)

    def check_backbone(self, backbone: BackboneConfig) -> SwinConfig:
        return self.geomim.check_backbone(backbone)

    def check_caches(self, bev_cells: tuple[int, int] | None, depth_sweeps: int, camera_frames: int) -> None:
        self.geomim.check_caches(bev_cells, depth_sweeps, camera_frames)
        self.mim4d.check_caches(bev_cells, depth_sweeps, camera_frames)
