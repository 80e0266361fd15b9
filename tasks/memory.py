"""Configs that no machine could hold, told before anything is allocated."""

from collections.abc import Mapping

FLOAT = 4  # bytes
MOST = 8e9  # bytes of one tensor of one image or map; the published networks' largest take a fiftieth


def check_memory(sizes: Mapping[str, float]) -> None:
    """Raise ValueError where a tensor is too big. sizes: what makes it, in the config's words -> bytes."""
    for name, size in sizes.items():
        if size > MOST:
            raise ValueError(f"{name} would take {size / 1e9:,.0f} GB: make it coarser or smaller")


def camera_sizes(size: tuple[int, int], depth_bins: tuple[float, float, float], stride: int) -> dict[str, float]:
    """What one image of (height, width) px and bins of (nearest, farthest, step) m take.

    How many cameras there are, a config does not know; beside a limit that nothing real comes near, it does not matter.
    stride: px a side of a cell of the features that are lifted.
    """
    (height, width), (low, high, step) = size, depth_bins
    bins = (high - low) / step
    return {
        f"image.size of {height:,} x {width:,} px": 3 * FLOAT * float(height * width),
        f"depth_bins, {bins:,.0f} of them,": FLOAT * bins * height * width / stride**2,
    }
