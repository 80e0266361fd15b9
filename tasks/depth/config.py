"""What the depth stage can be told."""

from pydantic import Field

from common.settings import Settings, runtime

VERSION = 2


class DepthConfig(Settings):
    """Which points of which sweeps are kept. GeoMIM takes 10 sweeps; the key sweep is always there and not counted."""

    sweeps: int = Field(10, ge=0, le=10, description="Previous LiDAR sweeps; 0 for the key sweep alone.")
    min_depth: float = Field(1.0, gt=0, description="Points this near (m) or nearer are left out, as in the devkit.")
    margin: float = Field(1.0, ge=0, description="Points this near (px) to the border are left out, as in the devkit.")
    part: int = runtime(16, "Samples a part: what is written, and lost to an interruption, at a time.", ge=1)
    workers: int = runtime(0, "Processes that project; 0 for one a core.", ge=0, le=256)
