"""True and predicted maps of a sample side by side, below its images."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from models.names import BEV_LAYERS, FREE, OCCUPANCY_CLASSES
from pictures.cameras import camera_tile
from pictures.palette import DARK
from pictures.sheet import GAP, camera_rows
from storage.atomic import write_bytes, write_json
from storage.index import Index

BACKGROUND = DARK.ground
TILE_WIDTH = 480  # px of each image
UNSEEN = (44, 44, 50)
LAYER_COLOURS = {"drivable_area": (90, 110, 140), "vehicle": (255, 170, 60)}
CLASS_COLOURS = np.array(
    [
        (0, 0, 0), (112, 128, 144), (220, 20, 60), (255, 127, 80), (255, 158, 0), (233, 150, 70), (255, 61, 99),
        (60, 60, 230), (47, 159, 159), (255, 140, 0), (255, 99, 71), (0, 207, 191), (175, 0, 75), (105, 60, 105),
        (112, 180, 60), (222, 184, 135), (0, 175, 0), BACKGROUND,
    ],
    np.uint8,
)  # fmt: skip

Tiles = dict[str, np.ndarray]  # title -> image (S, S, 3) uint8


def draw_listed(
    folder: Path,
    listing: str,
    index: Index,
    dataroot: Path,
    pictures: list[tuple[int, Tiles, dict[str, float]]],
    bev_range: float,
) -> None:
    """Write a PNG of every sample, named after the listing, and the listing with what else is said of each."""
    listed = []
    for place, (sample, tiles, facts) in enumerate(pictures, 1):
        path = folder / f"{Path(listing).stem}_{place}.png"
        write_bytes(path, picture(index, dataroot, sample, tiles, bev_range))
        scene = str(index.scene_name[index.scene[sample]])
        listed.append({"picture": path.name, "sample": str(index.token[sample]), "scene": scene} | facts)
    write_json(folder / listing, listed)


def picture(index: Index, dataroot: Path, sample: int, tiles: Tiles, bev_range: float) -> bytes:
    """A PNG: the images in two rows, and below them the maps, the car's front up."""
    cameras = camera_rows(
        index, sample, lambda camera, width: camera_tile(index, dataroot, sample, camera, width), TILE_WIDTH, DARK
    )
    side = (cameras.width - GAP) // 2
    out = Image.new("RGB", (cameras.width, cameras.height + GAP + side), BACKGROUND)
    out.paste(cameras, (0, 0))
    for i, (title, image) in enumerate(tiles.items()):
        tile = Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST)
        draw = ImageDraw.Draw(tile)
        for metres in range(10, int(bev_range) + 1, 10):
            reach = metres / bev_range * side / 2
            draw.ellipse([side / 2 - reach, side / 2 - reach, side / 2 + reach, side / 2 + reach], outline=(70, 70, 78))
        draw.text((8, 6), f"{title}; rings every 10 m", (255, 255, 255))
        out.paste(tile, (i * (side + GAP), cameras.height + GAP))
    file = io.BytesIO()
    out.save(file, "PNG")
    return file.getvalue()


def mask_image(masks: np.ndarray) -> np.ndarray:
    """(S, S, 3) of masks (L, Y, X), later layers over earlier ones; x goes up, y to the left."""
    image = np.full((*masks.shape[1:], 3), BACKGROUND, np.uint8)
    for name, mask in zip(BEV_LAYERS, masks):
        image[mask] = LAYER_COLOURS[name]
    return _front_up(image.swapaxes(0, 1))


def voxel_image(labels: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """(S, S, 3) of labels (X, Y, Z): in each column the highest voxel that is visible and not free."""
    occupied = visible & (labels != FREE)
    top = labels.shape[2] - 1 - occupied[..., ::-1].argmax(2)
    label = np.take_along_axis(labels, top[..., None], 2)[..., 0]
    image = CLASS_COLOURS[np.where(occupied.any(2), label, FREE)]
    image[~visible.any(2)] = UNSEEN
    return _front_up(image)


def _front_up(image_XY: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image_XY[::-1, ::-1])


assert len(CLASS_COLOURS) == len(OCCUPANCY_CLASSES)
