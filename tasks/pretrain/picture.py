"""What pretraining sees and makes of it, as one picture."""

from pathlib import Path

import numpy as np
import torch

from models.depth_bins import nearest_in_cells
from models.geomim.model import STRIDE, GeoMIM
from models.geomim.target import normalise_patches
from tasks.batches.pretrain import PretrainBatch
from tasks.pretrain.held_out import HeldOut


def draw_picture(path: Path, model: GeoMIM, held_out: HeldOut, samples: np.ndarray) -> None:
    """One block per sample: images, what the first half shows, LiDAR depth, predicted depth; below, three BEV maps.

    BEV features become colours by the first three principal components of the FIRST sample's target: one fixed basis
    for every map in the picture.
    """
    from matplotlib.figure import Figure  # no pyplot: no global state

    views = len(held_out.batches.index.cameras)
    figure = Figure(figsize=(2.4 * views, 7.2 * len(samples)), layout="constrained")
    basis = None
    blocks = figure.subfigures(len(samples), squeeze=False)[:, 0]
    for block, (batch, made) in zip(blocks, held_out.predictions(model, samples)):
        target = normalise_patches(batch.lidar_bev().float(), model.patch)[0]
        basis = principal_components(target) if basis is None else basis
        top, bottom = block.subfigures(2, 1, height_ratios=(4, 3.4))
        _draw_cameras(top, batch, made.depth_prob[0, 0], model)
        bevs = {"target": target, "from half 1": made.bev[0, 0], "from half 2": made.bev[1, 0]}
        for axis, (name, bev) in zip(bottom.subplots(1, len(bevs)), bevs.items()):
            # Rows are x and columns y; turned so that y (ahead) points up and x to the right.
            axis.imshow(bev_colours(bev.float().cpu(), basis).transpose(1, 0, 2), origin="lower")
            axis.set_title(f"BEV, {name}", fontsize=9)
            axis.set_axis_off()
    figure.savefig(path, dpi=80)


def _draw_cameras(figure, batch: PretrainBatch, depth_prob: torch.Tensor, model: GeoMIM) -> None:
    images = batch.images[0].cpu().numpy()
    bins = model.view_transform.bins
    centres = bins.edges().to(depth_prob) + bins.step / 2
    expected = (depth_prob * centres[:, None, None]).sum(1).cpu().numpy()
    nearest = nearest_in_cells(batch.depth_map[0], STRIDE).cpu().numpy()
    axes = figure.subplots(4, len(images))
    for camera, image in enumerate(images):
        shown = (batch.groups[camera % len(batch.groups)] == 0).cpu().numpy()
        cell = image.shape[0] // shown.shape[0]
        visible = shown.repeat(cell, 0).repeat(cell, 1)[..., None]
        axes[0, camera].imshow(image)
        axes[1, camera].imshow(np.where(visible, image, 128).astype(np.uint8))
        axes[2, camera].imshow(np.where(nearest[camera] > 0, nearest[camera], np.nan), vmin=bins.low, vmax=bins.high)
        axes[3, camera].imshow(expected[camera], vmin=bins.low, vmax=bins.high)
    for row, name in enumerate(("input", "half 1", "LiDAR depth", "predicted depth")):
        axes[row, 0].set_title(name, fontsize=9, loc="left")
    for axis in axes.flat:
        axis.set_axis_off()


def principal_components(bev: torch.Tensor) -> torch.Tensor:
    """(C, 3): the directions in which the cells of a map (C, X, Y) differ most, each with a fixed sign."""
    cells = bev.flatten(1).T.double().cpu()
    _, directions = torch.linalg.eigh(torch.cov((cells - cells.mean(0)).T))
    directions = directions[:, -3:].flip(1)
    if directions.shape[1] < 3:
        directions = torch.nn.functional.pad(directions, (0, 3 - directions.shape[1]))
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return torch.where(largest < 0, -directions, directions).float()


def bev_colours(bev: torch.Tensor, basis: torch.Tensor) -> np.ndarray:
    """(X, Y, 3) in 0..1: a map (C, X, Y) along the basis, -2 to 2 deviations of the normalised target's channels."""
    projected = (bev.flatten(1).T @ basis).view(*bev.shape[1:], 3)
    scale = 4 * max(1.0, bev.shape[0] ** 0.5) / 2
    return (projected / scale + 0.5).clamp(0, 1).numpy()
