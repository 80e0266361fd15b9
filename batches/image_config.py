"""What the network's images are told: their size, and how they are augmented."""

from typing import Any

from pydantic import Field, model_validator

from common.settings import Settings, runtime

# What this project once called its own numbers -> BEVDet's.
_RENAMED = {"zoom": "resize", "test_zoom": "resize_test", "rotate": "rot"}


class ImageConfig(Settings):
    """Size and augmentation of the network's input, in BEVDet's own numbers.

    A resize is added to the factor that makes the whole width fit, which is width / source width (704 / 1600 = 0.44).
    GeoMIM's and BEVFusion's limits (0.38 to 0.55 of 1600 px) are such factors themselves: -0.06 to 0.11 here.
    """

    size: tuple[int, int] = Field((256, 704), description="Height and width (px).")
    resize: tuple[float, float] = Field(
        (-0.06, 0.11), description="Range of what is added to width / source width, the factor that makes it fit."
    )
    # Of evaluation: no weights depend on it.
    resize_test: float = runtime(0.0, "What is added to it where nothing is random.")
    crop_h: tuple[float, float] = Field(
        (0.0, 0.0), description="Range of the share of the height that goes at the bottom; the test takes its mean."
    )
    rot: tuple[float, float] = Field((-5.4, 5.4), description="Range of the rotation (degrees).")
    flip: bool = Field(True, description="Mirror half of the images.")

    @model_validator(mode="before")
    @classmethod
    def _of_old(cls, given: Any) -> Any:
        """Say what to write for the fields of before."""
        for old, new in _RENAMED.items():
            if isinstance(given, dict) and old in given:
                raise ValueError(f"{old} is {new} now: {_now(old, given[old], given.get('size', (256, 704)))}")
        return given

    @model_validator(mode="after")
    def _sane(self) -> "ImageConfig":
        if min(self.size) < 1:
            raise ValueError(f"size {self.size} must be positive")
        for name in ("resize", "crop_h", "rot"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} {(low, high)} must ascend")
        if self.crop_h[0] < 0 or self.crop_h[1] >= 1:
            raise ValueError(f"crop_h {self.crop_h} must lie in [0, 1): it is a share of the height")
        return self


def _now(old: str, value: Any, size: Any) -> str:
    """What to write for a field of before."""
    try:
        if old == "rotate":
            return f"write rot: [{-value:g}, {value:g}]"
        fit, zooms = size[1] / 1600, value if isinstance(value, list | tuple) else [value]
        added = ", ".join(f"{round(float(zoom - 1) * fit, 6):g}" for zoom in zooms)
        return f"for stored images of 1600 px write {_RENAMED[old]}: {f'[{added}]' if len(zooms) > 1 else added}"
    except (TypeError, ValueError, LookupError):
        return "see docs/finetuning.md"
