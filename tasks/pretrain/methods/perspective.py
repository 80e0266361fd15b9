"""Objects in the image plane: supervised pretraining from the boxes alone, without LiDAR, depth or a bird's eye."""

from typing import ClassVar, Literal

from pydantic import Field

from tasks.pretrain.method_config import MethodConfig


class Config(MethodConfig):
    """Images in, a heatmap of box centres in each out (CenterNet, arXiv 1904.07850).

    A backbone to begin with where there is none that ImageNet or nuImages pretrained.
    """

    name: Literal["perspective"] = "perspective"
    entry: ClassVar[str] = "tasks.pretrain.perspective:PerspectivePretraining"

    width: int = Field(64, ge=1, description="Channels of the neck, thrown away after pretraining.")
    min_lidar_points: int = Field(1, ge=0, description="Boxes with fewer LiDAR points are not learnt from.")
