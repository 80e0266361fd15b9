"""What decides a simulated world."""

from typing import Literal

from pydantic import Field

from common.settings import Settings, runtime
from simulate.scenes import MINI, MOST

VERSION = 2


class SimulateConfig(Settings):
    """Scenes of a small town in nuScenes format: ten make a v1.0-mini, more of them a v1.0-trainval."""

    seed: int = Field(0, ge=0, description="another seed is another town")
    scenes: int = Field(MINI, ge=MINI, le=MOST, description="a fifth of them are val")
    keyframes: int = Field(12, ge=2, le=40, description="key frames of a scene, at 2 Hz (real scenes have 40)")
    image_scale: float = Field(0.25, ge=0.05, le=1.0, description="1 gives 1600x900 images; intrinsics follow")
    camera_sweeps: bool = Field(False, description="camera frames at 12 Hz between the key frames")
    lidar_rate: Literal[2, 4, 10, 20] = Field(20, description="LiDAR sweeps a second, those of the key frames included")
    lidar_reach: float = Field(
        100.0, ge=5, le=100, description="m that the LiDAR measures; what no point meets is not annotated"
    )
    density: float = Field(1.0, gt=0.0, le=1.5, description="road users and objects relative to 54 a scene")
    occupancy: bool = Field(True, description="write the key frames' occupancy in Occ3D's layout (gts/)")
    workers: int = runtime(0, "processes; 0 takes one a core", ge=0)
