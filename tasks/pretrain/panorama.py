"""What several cameras see at once, as panoramas: a row for each kind of picture."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure
    from matplotlib.image import AxesImage


def from_left_to_right(mounting: Tensor) -> list[int]:
    """The order of cameras that are mounted so: (C, 4, 4), camera to ego (x ahead, y to the left)."""
    ahead = mounting[:, :2, 2].cpu()
    return torch.atan2(-ahead[:, 1], ahead[:, 0]).argsort().tolist()


def draw_rows(
    figure: "SubFigure",
    rows: Mapping[str, np.ndarray],
    order: Sequence[int],
    names: Sequence[str],
    fontsize: int = 9,
    **colours: Any,
) -> list["AxesImage"]:
    """Draw a row for each (C, h, w) or (C, h, w, 3), cameras in this order and 1 apart in x; y goes from 0 to 1.

    colours: of `imshow`, for what has no colours of its own. Axes of its own for each camera would take six times as
    long to lay out and draw.
    """
    axes = figure.subplots(len(rows), 1)
    whole = (0, len(order), 1, 0)
    drawn = []
    for axis, (name, views) in zip(axes, rows.items()):
        picture = np.concatenate(views[list(order)], 1)
        drawn.append(axis.imshow(picture, extent=whole, aspect="auto", **colours))  # the figure keeps the proportions
        axis.vlines(range(1, len(order)), 0, 1, color="white", linewidth=6)
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(name, fontsize=fontsize)
    told = [names[camera].removeprefix("CAM_").replace("_", " ").lower() for camera in order]
    axes[0].set_xticks(np.arange(len(order)) + 0.5, told, fontsize=9)
    axes[0].tick_params(length=0, labeltop=True, labelbottom=False)
    return drawn
