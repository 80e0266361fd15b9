"""What pretraining sees and makes of it, as one picture.

BEV features become colours along three principal components of a target. They are kept beside the picture
(bev_colours.npz), so that pictures of other steps, and other programs, use the same ones.
"""

import io
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from batches.geomim import GeoMIMBatch
from batches.lidar import sample_boxes
from models.geomim.model import GeoMIM, Reconstruction
from models.geomim.target import normalise_patches
from pictures.features import PrincipalColours
from storage.atomic import write_bytes
from tasks.pretrain.geomim.baseline import labelled_depth
from tasks.pretrain.geomim.held_out import HeldOut
from tasks.pretrain.panorama import draw_rows, from_left_to_right

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

COLOURS_FILE = "bev_colours.npz"
VIEW_INCHES, BEV_INCHES = 2.9, 3.8
MOST_ERROR = 3.0  # where the colour of the error ends, in deviations of the normalised target


def kept_colours(path: Path, bev: Tensor) -> PrincipalColours:
    """Those of the file at `path`, which is made from a map (C, X, Y) where it is missing."""
    if not path.is_file():
        buffer = io.BytesIO()
        np.savez(buffer, **vars(PrincipalColours.of(cells_of(bev).reshape(-1, len(bev)))))
        write_bytes(path, buffer.getvalue())
    with np.load(path) as file:
        return PrincipalColours(**{field.name: file[field.name] for field in fields(PrincipalColours)})


def cells_of(bev: Tensor) -> np.ndarray:
    """(X, Y, C) of a map (C, X, Y)."""
    return bev.float().cpu().numpy().transpose(1, 2, 0)


def draw_picture(path: Path, model: GeoMIM, held_out: HeldOut, samples: np.ndarray) -> None:
    """One block per sample: a panorama of images, what the first half shows, depth; below them maps of the BEV."""
    from matplotlib.figure import Figure  # no pyplot: no global state

    views, (height, width) = len(held_out.batches.index.cameras), held_out.batches.image_size
    inches = 4 * (VIEW_INCHES * height / width + 0.12) + 0.2, BEV_INCHES  # of the cameras, of the BEV
    figure = Figure(figsize=(VIEW_INCHES * max(views, 5) + 0.8, sum(inches) * len(samples)), layout="constrained")
    blocks = figure.subfigures(len(samples), squeeze=False)[:, 0]
    for (batch, made), sample, block in zip(held_out.predictions(model, samples), samples, blocks):
        block.suptitle(f"sample {batch.tokens[0]}", fontsize=10)
        top, bottom = block.subfigures(2, 1, height_ratios=inches)
        _draw_cameras(top, batch, made, model, held_out.batches.index.cameras)
        _draw_bev(bottom, batch, made, model, held_out, int(sample), path.parent / COLOURS_FILE)
    figure.savefig(path, dpi=80)


def _draw_cameras(
    figure: "SubFigure", batch: GeoMIMBatch, made: Reconstruction, model: GeoMIM, names: tuple[str, ...]
) -> None:
    images, bins = batch.images[0].cpu().numpy(), model.view_transform.bins
    prob = made.depth_prob[0, 0].float()  # from half 1
    centres = bins.edges().to(prob) + bins.step / 2
    expected = (prob * centres[:, None, None]).sum(1).cpu().numpy()
    nearest = labelled_depth(batch.depth_map[0], bins).cpu().numpy()
    shown = (batch.groups.cpu().numpy() == 0)[np.arange(len(images)) % len(batch.groups)]
    cell = images.shape[1] // shown.shape[1]
    visible = shown.repeat(cell, 1).repeat(cell, 2)[..., None]
    rows = {
        "image": images,
        "what half 1 shows": np.where(visible, images, 128).astype(np.uint8),
        "LiDAR depth": np.where(nearest > 0, nearest, np.nan),
        "depth from half 1": expected,
    }
    order = from_left_to_right(batch.cameras.mounting[0])
    drawn = draw_rows(figure, rows, order, names, vmin=bins.low, vmax=bins.high, cmap="plasma_r")
    figure.colorbar(drawn[-1], ax=[image.axes for image in drawn[2:]], label="m", shrink=0.8)


def _draw_bev(
    figure: "SubFigure",
    batch: GeoMIMBatch,
    made: Reconstruction,
    model: GeoMIM,
    held_out: HeldOut,
    sample: int,
    colours: Path,
) -> None:
    target = normalise_patches(batch.lidar_bev().float(), model.patch)
    colour = kept_colours(colours, target[0])
    squared = (made.bev.float() - target).square().mean((0, 1, 2)).cpu()  # (X, Y)
    blind = (held_out.blind.bev.to(target) - target).square().mean((0, 1)).cpu()
    x_low, y_low, _, x_high, y_high, _ = held_out.batches.bev.attributes.point_range
    corners = sample_boxes(held_out.batches.index, sample, min_lidar_points=1).corners()[:, [0, 1, 2, 3, 0], :2]

    axes = figure.subplots(1, 5)

    def draw(
        axis: "Axes",
        name: str,
        values: np.ndarray,
        boxes: str = "white",
        cmap: str | None = None,
        limits: tuple[float | None, float | None] = (None, None),
    ) -> None:
        # Rows are x and columns y; turned so that y (ahead) points up and x to the right.
        turned, extent = values.swapaxes(0, 1), (x_low, x_high, y_low, y_high)
        drawn = axis.imshow(turned, cmap, vmin=limits[0], vmax=limits[1], origin="lower", extent=extent)
        for outline in corners:
            axis.plot(*outline.T, color=boxes, linewidth=0.8)
        axis.set(xlim=(x_low, x_high), ylim=(y_low, y_high), xticks=[], yticks=[])
        axis.set_title(name, fontsize=9)
        if cmap:
            figure.colorbar(drawn, ax=axis, shrink=0.7)

    draw(axes[0], "teacher's BEV: 3 principal components; boxes", colour(cells_of(target[0])))
    draw(axes[1], "rebuilt from half 1", colour(cells_of(made.bev[0, 0])))
    draw(axes[2], "rebuilt from half 2", colour(cells_of(made.bev[1, 0])))
    error = f"error (deviations; mean square {squared.mean():.3f})"
    draw(axes[3], error, squared.sqrt().numpy(), "white", "magma", (0, MOST_ERROR))
    gain = f"better (blue) or worse than no images ({blind.mean():.3f})"
    draw(axes[4], gain, (blind - squared).numpy(), "black", "RdBu", (-1, 1))
