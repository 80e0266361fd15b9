"""Held-out clips as one picture: what the cameras saw, what is hidden of it, and what is rendered."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from models.mim4d.renderer import Rendered
from storage.atomic import write_bytes
from tasks.batches.clips import ClipBatch
from tasks.batches.rays import View, pixel_directions

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

STEP = 4  # px between the rays of the picture
VIEW_INCHES = 2.9
CAMERA_FIELDS = ("camera_to_frame", "intrinsics", "post_homography")


class Panorama(NamedTuple):
    """A clip's key frame, rendered in full."""

    clip: ClipBatch  # with its own rays, through LiDAR points
    direct: Rendered
    rebuilt: Rendered | None  # from the earlier frames alone
    farthest: float  # m, where the colours of depth end


def dense(clip: ClipBatch) -> ClipBatch:
    """The same clip, of one sample, with a ray through every STEP-th pixel of the key frame in place of its rays."""
    _, _, cameras, height, width, _ = clip.images.shape
    rows, columns = np.meshgrid(np.arange(STEP // 2, height, STEP), np.arange(STEP // 2, width, STEP), indexing="ij")
    pixels = np.stack([rows.ravel(), columns.ravel()], 1)
    origins, directions = [], []
    for camera in range(cameras):
        to_lidar, lens, post = (getattr(clip.cameras, name)[0, 0, camera].numpy() for name in CAMERA_FIELDS)
        view = View(to_lidar, lens, post, np.array([np.inf, np.inf]), clip.images[0, 0, camera].numpy())
        directions.append(pixel_directions(pixels, view))
        origins.append(np.broadcast_to(view.camera_to_lidar[:3, 3], (len(pixels), 3)))
    origin, direction = (torch.from_numpy(np.concatenate(a)).float()[None, None] for a in (origins, directions))
    count = origin.shape[2]
    key = {
        name: getattr(clip, name)[:, :1] for name in ("target", "target_there", "others", "others_there", "to_other")
    }
    return clip._replace(
        **key,
        origins=origin,
        directions=direction,
        colours=torch.zeros(1, 1, count, 3),
        depths=torch.zeros(1, 1, count),
        cast=torch.ones(1, 1, count, dtype=torch.bool),
        pixels=torch.zeros(1, 1, count, 3, dtype=torch.int64),
        noise=torch.zeros(len(clip.noise), 1, 1, count),
    )


def draw_picture(path: Path, panoramas: Sequence[Panorama], names: tuple[str, ...]) -> None:
    """One block per clip, a column per camera from left to right; `names` of the cameras."""
    from matplotlib.figure import Figure  # no pyplot: no global state

    height, width = panoramas[0].clip.images.shape[3:5]
    rows = 7
    inches = rows * (VIEW_INCHES * height / width + 0.12) + 0.4
    figure = Figure(figsize=(VIEW_INCHES * len(names) + 0.8, inches * len(panoramas)), layout="constrained")
    blocks = figure.subfigures(len(panoramas), squeeze=False)[:, 0]
    for panorama, block in zip(panoramas, blocks):
        _draw(block, panorama, names)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    write_bytes(path, buffer.getvalue())


def _lidar(clip: ClipBatch, shape: tuple[int, int, int]) -> np.ndarray:
    """Distances (m) along the clip's rays through LiDAR points, NaN between them."""
    known = clip.depths[0, 0] > 0
    camera, row, column = clip.pixels[0, 0][known].unbind(1)
    out = np.full(shape, np.nan)
    out[camera, (row // STEP).clamp(max=shape[1] - 1), (column // STEP).clamp(max=shape[2] - 1)] = clip.depths[0, 0][
        known
    ].numpy()
    return out


def _draw(figure: "SubFigure", panorama: Panorama, names: tuple[str, ...]) -> None:
    clip, direct, rebuilt, farthest = panorama
    figure.suptitle(f"sample {clip.tokens[0]}", fontsize=10)
    images = clip.images[0, 0].numpy()
    count, height, width, _ = images.shape
    cell = height // clip.visible.shape[1]
    visible = clip.visible.unflatten(0, clip.images.shape[:3])[0, 0].numpy().repeat(cell, 1).repeat(cell, 2)[..., None]
    shape = (count, len(range(STEP // 2, height, STEP)), len(range(STEP // 2, width, STEP)))
    grey = np.full((*shape, 3), 0.5)

    def colours(rendered: Rendered | None) -> np.ndarray:
        if rendered is None:
            return grey
        return rendered.rgb[0].float().cpu().reshape(*shape, 3).numpy().clip(0, 1)

    def depths(rendered: Rendered | None) -> np.ndarray:
        if rendered is None:
            return np.full(shape, np.nan)
        depth = torch.where(rendered.hit[0], rendered.depth[0], torch.nan)
        return depth.float().cpu().reshape(shape).numpy()

    shown = [
        ("image", images),
        ("what is shown", np.where(visible, images, 128).astype(np.uint8)),
        ("colour, rendered", colours(direct)),
        ("colour, from earlier frames", colours(rebuilt)),
        ("LiDAR depth", _lidar(clip, shape)),
        ("depth, rendered", depths(direct)),
        ("depth, from earlier frames", depths(rebuilt)),
    ]
    ahead = clip.cameras.camera_to_bev()[0, :, :2, 2]
    axes = figure.subplots(len(shown), count, squeeze=False)
    for column, camera in enumerate(torch.atan2(ahead[:, 0], ahead[:, 1]).argsort().tolist()):  # from left to right
        axes[0, column].set_title(names[camera].removeprefix("CAM_").replace("_", " ").lower(), fontsize=9)
        for row, (_, pictures) in enumerate(shown):
            drawn = axes[row, column].imshow(pictures[camera], vmin=0, vmax=farthest, cmap="turbo_r")
    for row, (name, _) in enumerate(shown):
        axes[row, 0].set_ylabel(name, fontsize=8)
    figure.colorbar(drawn, ax=axes[4:], label="m", shrink=0.8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
