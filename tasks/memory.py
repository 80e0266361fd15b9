"""Configs that no machine could hold, told before anything is allocated."""

from collections.abc import Mapping

from models.names import CAMERAS

FLOAT = 4  # bytes
VIEWS = len(CAMERAS)  # a config does not know how many cameras its data has
MOST = 8e9  # bytes of one tensor of one sample; the published networks' largest take a fiftieth


def check_memory(sizes: Mapping[str, float]) -> None:
    """Raise ValueError where a tensor is too big. sizes: what makes it, in the config's words -> bytes a sample."""
    for name, size in sizes.items():
        if size > MOST:
            raise ValueError(f"{name} would take {size / 1e9:,.0f} GB a sample: make it coarser or smaller")


def camera_sizes(size: tuple[int, int], depth_bins: tuple[float, float, float], stride: int) -> dict[str, float]:
    """What images of (height, width) px and bins of (nearest, farthest, step) m take.

    stride: px a side of a cell of the features that are lifted.
    """
    (height, width), (low, high, step) = size, depth_bins
    bins = (high - low) / step
    return {
        f"image.size of {height:,} x {width:,} px": VIEWS * 3 * FLOAT * float(height * width),
        f"depth_bins, {bins:,.0f} of them,": VIEWS * FLOAT * bins * height * width / stride**2,
    }
