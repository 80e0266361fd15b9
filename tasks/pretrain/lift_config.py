"""What the methods have in common that lift images with a depth distribution and are probed for boxes."""

from pydantic import Field, model_validator

from common.settings import Settings, runtime


class LiftConfig(Settings):
    """Depth's bins, and the linear probe."""

    depth_bins: tuple[float, float, float] = Field((1.0, 60.0, 0.5), description="Nearest, farthest and step (m).")
    # What is measured on the way; the weights are the same.
    probe_samples: int = runtime(
        64, "Training samples to fit the linear probe on at each evaluation; 0: no probe.", ge=0
    )

    @model_validator(mode="after")
    def _bins_fit(self) -> "LiftConfig":
        low, high, step = self.depth_bins
        if not 0 < low < high or step <= 0 or round((high - low) / step) < 2:
            raise ValueError(f"depth_bins {self.depth_bins} must be nearest < farthest and a step: two bins at least")
        return self
