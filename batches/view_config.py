"""Which frames a detector sees, and how they become a bird's-eye-view map."""

from typing import Literal

from pydantic import Field, model_validator

from common.settings import Settings


class ViewConfig(Settings):
    """How the images of one or more frames become a bird's-eye-view map."""

    frames: Literal[1, 2] = Field(1, description="2: the previous key frame beside the key frame (BEVDet4D).")
    previous_from: int = Field(
        0, ge=0, description="Steps without the previous frame, at first; zeros stand for its map (BEVDet: a tenth)."
    )
    camera_aware: bool = Field(False, description="A depth net that is told of the camera (BEVDepth).")
    aspp_width: int = Field(96, ge=1, description="Channels of its pyramid of dilated convolutions.")
    stereo: bool = Field(False, description="Depth from matching each frame with the one before too (BEVStereo).")
    depth_spacing: Literal["even", "log"] = Field("even", description="Of depth_bins; log is BEVDet's SID.")

    # What released detectors were trained with, and expect.
    channels: Literal["rgb", "bgr"] = Field("rgb", description="bgr: red and blue exchanged, but not their statistics.")
    key_ego: Literal["lidar", "camera"] = Field(
        "lidar", description="The ego at the time of the LiDAR sweep, or of CAM_FRONT_LEFT (of CAM_FRONT for boxes)."
    )
    truncate_cells: bool = Field(False, description="Points count to the cell that lies towards the origin.")

    @model_validator(mode="after")
    def _fits_together(self) -> "ViewConfig":
        if self.stereo and not (self.camera_aware and self.frames == 2):
            raise ValueError("stereo needs frames = 2 and camera_aware = true: the depth net is what reads it")
        return self

    @property
    def images(self) -> int:
        """Frames whose images are fed: with stereo one more, to match the earliest with."""
        return self.frames + self.stereo
