"""Held-out clips as one picture: what the cameras saw, what is hidden of it, and what is rendered."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from batches.clips import ClipBatch
from batches.rays import View, pixel_directions
from models.mim4d.renderer import Rendered
from storage.atomic import write_bytes
from tasks.pretrain.panorama import draw_rows, from_left_to_right

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

STEP = 4  # px between the rays of the picture
VIEW_INCHES = 2.9
LIDAR = "LiDAR depth"
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
    key = {name: getattr(clip, name)[:, :1] for name in ("target", "others", "others_there", "to_other")}
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
    """One block per clip, cameras from left to right; `names` of the cameras."""
    from matplotlib.figure import Figure  # no pyplot: no global state

    height, width = panoramas[0].clip.images.shape[3:5]
    inches = [len(_rows(panorama)) * (VIEW_INCHES * height / width + 0.12) + 0.4 for panorama in panoramas]
    figure = Figure(figsize=(VIEW_INCHES * len(names) + 0.8, sum(inches)), layout="constrained")
    blocks = figure.subfigures(len(panoramas), squeeze=False, height_ratios=inches)[:, 0]
    for panorama, block in zip(panoramas, blocks):
        _draw(block, panorama, names)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    write_bytes(path, buffer.getvalue())


def _rows(panorama: Panorama) -> dict[str, np.ndarray]:
    """What is drawn of every camera (N, h, w) or (N, h, w, 3), by name; NaN where there is nothing."""
    clip = panorama.clip
    images = clip.images[0, 0].numpy()
    count, height, width, _ = images.shape
    cell = height // clip.visible.shape[1]
    visible = clip.visible.unflatten(0, clip.images.shape[:3])[0, 0].numpy().repeat(cell, 1).repeat(cell, 2)[..., None]
    shape = (count, len(range(STEP // 2, height, STEP)), len(range(STEP // 2, width, STEP)))
    rows = {"image": images, "what is shown": np.where(visible, images, 128).astype(np.uint8)}
    parts = {"rendered": panorama.direct, "from earlier\nframes": panorama.rebuilt}
    made = {name: rendered for name, rendered in parts.items() if rendered is not None}
    for name, rendered in made.items():
        rows[f"colour,\n{name}"] = rendered.rgb[0].float().cpu().reshape(*shape, 3).numpy().clip(0, 1)
    rows[LIDAR] = np.full(shape, np.nan)
    for name, rendered in made.items():
        depth = torch.where(rendered.hit[0], rendered.depth[0], torch.nan)
        rows[f"depth,\n{name}"] = depth.float().cpu().reshape(shape).numpy()
    return rows


def _draw(figure: "SubFigure", panorama: Panorama, names: tuple[str, ...]) -> None:
    clip, farthest = panorama.clip, panorama.farthest
    figure.suptitle(f"sample {clip.tokens[0]}", fontsize=10)
    rows = _rows(panorama)
    known = clip.depths[0, 0] > 0
    pixels, distances = clip.pixels[0, 0][known], clip.depths[0, 0][known]
    order = from_left_to_right(clip.cameras.mounting[0])
    colours: dict[str, Any] = {"vmin": 0, "vmax": farthest, "cmap": "plasma_r"}
    drawn = draw_rows(figure, rows, order, names, fontsize=8, **colours)
    depths = [image.axes for image in drawn[list(rows).index(LIDAR) :]]
    height, width = (STEP * size for size in rows[LIDAR].shape[1:])
    place = torch.tensor(order).argsort()
    x, y = place[pixels[:, 0]] + pixels[:, 2] / width, pixels[:, 1] / height
    depths[0].scatter(x, y, s=6, c=distances, linewidths=0, **colours)
    depths[0].set(xlim=(0, len(order)), ylim=(1, 0))
    figure.colorbar(drawn[-1], ax=depths, label="m", shrink=0.8)
