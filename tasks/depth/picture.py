"""A look at the result: the LiDAR's points over a sample's six images, coloured by depth."""

from pathlib import Path

import numpy as np

from dataroot.images import read_image
from storage.depth import DepthReader
from storage.index import Index

# As one sees them standing in the car: the front from left to right, then the back from left to right.
LAYOUT = (
    ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"),
    ("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"),
)
NEAR, FAR = 2.0, 60.0  # m, the ends of the colour scale
TILE_WIDTH = 800  # px of one camera's picture


def save_picture(path: Path, dataroot: Path, index: Index, store: DepthReader, sample: int, sweeps: int = 0) -> None:
    """A PNG of the six images of a sample with the points of its key sweep and up to `sweeps` before it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    points = store.read(sample)
    highest = max(height / width for width, height in index.image_size[sample])
    tile = TILE_WIDTH / 100, TILE_WIDTH / 100 * highest  # inches at 100 dpi
    figure = Figure(figsize=(3 * tile[0], 2 * tile[1] + 1.9), dpi=100, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    for row, names in zip(axes, LAYOUT, strict=True):
        for axis, name in zip(row, names, strict=True):
            camera = index.cameras.index(name)
            # Grey, so that colour means depth alone.
            grey = read_image(dataroot / index.camera_path[sample, camera]).mean(2, dtype=np.float32)
            u, v, depth = points.camera(camera, sweeps)
            far_first = np.argsort(-depth)
            dots = {"s": 7, "linewidths": 0, "cmap": "turbo_r", "norm": LogNorm(NEAR, FAR)}
            axis.imshow(grey, cmap="gray", vmin=0, vmax=340)
            drawn = axis.scatter(u[far_first], v[far_first], c=depth[far_first], **dots)
            axis.set_title(f"{name}  ({len(u):,} points)", fontsize=14)
            axis.set_xlim(0, grey.shape[1])
            axis.set_ylim(grey.shape[0], 0)
            axis.set_axis_off()
    bar = figure.colorbar(drawn, ax=axes, location="bottom", fraction=0.03, aspect=100, pad=0.01)
    bar.set_label("depth (m)", fontsize=14)
    ticks = [2, 3, 5, 10, 20, 40, 60]
    bar.set_ticks(ticks, labels=[str(tick) for tick in ticks], minor=False)
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=14)
    scene = index.scene_name[index.scene[sample]]
    figure.suptitle(f"LiDAR depth over the images: {scene}, sample {index.token[sample]}", fontsize=16)
    figure.savefig(path)
