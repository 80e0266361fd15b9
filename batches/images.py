"""Camera images for training: decoded as small as serves, augmented, with the matrix that moves their pixels.

The recipe is the original GeoMIM's and BEVDet's: resize, crop at the bottom, mirror, rotate; drawn per camera.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from batches.image_config import ImageConfig
from batches.resample import axis_of, resample_into, rotate_into
from common.errors import UserError
from common.files import of_sample
from dataroot.images import read_image
from storage.index import Index

if TYPE_CHECKING:
    from torch import Tensor

# ImageNet's, for RGB in 0..255.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)

LARGEST = 5  # eighths of its size that an image is decoded at, if not whole


@dataclass(frozen=True)
class ImageDraw:
    """What is done to one image: resize by a factor, cut a window, mirror it, rotate it about its centre."""

    resize: float
    crop: tuple[int, int]  # left, top of the window in the resized image
    flip: bool = False
    rotate: float = 0.0  # degrees, counter-clockwise as seen


def draw_image(
    source_size: tuple[int, int],
    size: tuple[int, int],
    random: np.random.Generator,
    resize: tuple[float, float],
    rot: tuple[float, float],
    flip: bool,
    crop_h: tuple[float, float] | None = None,
) -> ImageDraw:
    """A draw for an image of `source_size` (width, height), in BEVDet's order.

    size: (height, width) of the network's input; resize, rot: ranges of the factor and of degrees. crop_h: range of the
    share of the resized image's height that goes at the bottom; None cuts nothing and draws no number for it, where
    BEVDet draws one from 0 to 0.
    """
    factor = random.uniform(*resize)
    width, height = resized(source_size, factor)
    top = _top(height, size[0], random.uniform(*crop_h) if crop_h else 0.0)
    left = int(random.uniform(0, max(0, width - size[1])))
    return ImageDraw(factor, (left, top), flip and bool(random.choice([0, 1])), random.uniform(*rot))


def draw_middle(
    source_size: tuple[int, int], size: tuple[int, int], factor: float, crop_h: tuple[float, float] = (0.0, 0.0)
) -> ImageDraw:
    """The draw in which nothing is random: the middle, and so far above the bottom as `crop_h` is on average.

    source_size: (width, height); size: (height, width) of the network's input; factor: of the resize.
    """
    width, height = resized(source_size, factor)
    return ImageDraw(factor, (max(0, width - size[1]) // 2, _top(height, size[0], float(np.mean(crop_h)))))


def _top(height: int, wanted: int, cut: float) -> int:
    """First row of a window of `wanted` rows that ends a share `cut` of the image's height above its bottom."""
    return int((1 - cut) * height) - wanted


def draw_training(config: ImageConfig, source_size: tuple[int, int], generator: np.random.Generator) -> ImageDraw:
    """A random draw for an image of `source_size` (width, height). UserError where nothing of it would be left."""
    low, high = (_factor(config, source_size, "resize", added) for added in config.resize)
    crop_h = config.crop_h if any(config.crop_h) else None
    draw = draw_image(source_size, config.size, generator, (low, high), config.rot, True, crop_h)
    return replace(draw, flip=draw.flip and config.flip)


def draw_test(config: ImageConfig, source_size: tuple[int, int]) -> ImageDraw:
    """The draw of an image that is evaluated. UserError where nothing of it would be left."""
    factor = _factor(config, source_size, "resize_test", config.resize_test)
    return draw_middle(source_size, config.size, factor, config.crop_h)


def _factor(config: ImageConfig, source_size: tuple[int, int], field: str, added: float) -> float:
    fit = fitting(source_size[0], config.size[1])
    factor = config.size[1] / source_size[0] + added if added else fit
    if min(resized(source_size, factor)) < 1:
        source = "x".join(map(str, source_size))
        raise UserError(f"image.{field} {added:g} leaves nothing of an image of {source} px, which fits at {fit:g}")
    return factor


def fitting(source_width: int, width: int) -> float:
    """The factor at which an image of `source_width` px becomes `width` px wide.

    width / source_width, or the next float where that falls short: 1600 * (928 / 1600) is 927.9..., and pixels are
    counted by truncation.
    """
    factor = width / source_width
    return factor if int(source_width * factor) == width else math.nextafter(factor, math.inf)


def resized(source_size: tuple[int, int], resize: float) -> tuple[int, int]:
    """(width, height) in whole pixels after a resize."""
    return int(source_size[0] * resize), int(source_size[1] * resize)


def post_homography(draw: ImageDraw, size: tuple[int, int]) -> np.ndarray:
    """4x4, a pixel (u, v, depth, 1) of the stored image -> of the network's input of `size` (height, width)."""
    height, width = size
    matrix = np.diag([draw.resize, draw.resize, 1.0, 1.0])
    matrix[:2, 3] = -np.asarray(draw.crop, float)
    if draw.flip:
        matrix = np.array([[-1.0, 0, 0, width], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ matrix
    c, s = math.cos(math.radians(draw.rotate)), math.sin(math.radians(draw.rotate))
    rotation = np.array([[c, s, 0, 0], [-s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    centre = np.array([width / 2, height / 2])
    rotation[:2, 3] = centre - rotation[:2, :2] @ centre
    return rotation @ matrix


def apply_draw(
    image: np.ndarray,
    draw: ImageDraw,
    size: tuple[int, int],
    source_size: tuple[int, int],
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The network's input, uint8 (height, width, 3), written to `out` where that is given.

    `image` is the stored one of `source_size` (width, height), whole or decoded at some eighths of its size. Bicubic
    resize, rows before columns, nearest-neighbour rotation, black outside: Pillow's pixels to the bit, as in the
    original, of the window alone (batches/resample.py). The window of a scaled image is resized by itself, which rounds
    a few values by 1 or 2 differently than resizing all of it.
    """
    (left, top), target, stored = draw.crop, resized(source_size, draw.resize), image.shape[1::-1]
    out = np.empty((*size, 3), np.uint8) if out is None else out
    first = max(0, left), max(0, top)
    end = min(target[0], left + size[1]), min(target[1], top + size[0])
    count = end[0] - first[0], end[1] - first[1]
    if min(count) < 1:
        out[:] = 0
        return out
    if stored == source_size:
        x, y = (axis_of(s, (0, s), whole, at, n) for s, whole, at, n in zip(stored, target, first, count))
    else:
        # Eighths, not the ratio of the sizes: 5/8 of 900 rows are 562.5, decoded as 563.
        eighths = round(8 * stored[0] / source_size[0])
        steps = [source * eighths / 8 / side for source, side in zip(source_size, target)]  # scaled px per target px
        boxes = [(low * step, high * step) for low, high, step in zip(first, end, steps)]
        x, y = (axis_of(s, box, n, 0, n) for s, box, n in zip(stored, boxes, count))
    canvas = np.empty_like(out) if draw.rotate else out
    if count != size[::-1]:
        canvas[:] = 0
    place = size[1] - (end[0] - left) if draw.flip else first[0] - left, first[1] - top
    resample_into(canvas, image, place, x, y, draw.flip)
    if draw.rotate:
        rotate_into(out, canvas, draw.rotate)
    return out


def load_image(
    path: Path, draw: ImageDraw, size: tuple[int, int], source_size: tuple[int, int], out: np.ndarray | None = None
) -> np.ndarray:
    """The network's input from a file, decoded at the cheapest scale, by `apply_draw`. Raises as `read_image` does."""
    return apply_draw(read_image(path, scale_of(draw, source_size)), draw, size, source_size, out)


def scale_of(draw: ImageDraw, source_size: tuple[int, int]) -> tuple[int, int] | None:
    """Pixels (width, height) that a decode must have for a draw; None for all.

    Decoded at 6/8 and 7/8 an image takes half as long again as whole and twice as long: only 4/8 and 8/8 are done many
    numbers at a time (bench/images.py).
    """
    wanted = resized(source_size, draw.resize)
    return wanted if all(8 * px <= LARGEST * source for px, source in zip(wanted, source_size)) else None


def draws_of(
    index: Index, sample: int, config: ImageConfig, generator: np.random.Generator | None = None
) -> list[ImageDraw]:
    """A draw for each camera of a sample, one after the other; nothing random without a generator."""
    sizes = [tuple(size) for size in index.image_size[sample].tolist()]
    if generator is None:
        return [draw_test(config, size) for size in sizes]
    return [draw_training(config, size, generator) for size in sizes]


def load_images(
    index: Index,
    dataroot: Path,
    sample: int,
    draws: Sequence[ImageDraw],
    size: tuple[int, int],
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A sample's images (N, H, W, 3) uint8 of `size` (H, W), in `out` where that is given.

    Raises as `read_image` does, naming the sample.
    """
    return load_paths(index, dataroot, sample, index.camera_path[sample], draws, size, out)


def load_paths(
    index: Index,
    dataroot: Path,
    sample: int,
    paths: Sequence[str],
    draws: Sequence[ImageDraw],
    size: tuple[int, int],
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The same of other images of the sample's cameras (N,), black where the path is ""."""
    sizes = [tuple(source) for source in index.image_size[sample].tolist()]
    out = np.empty((len(draws), *size, 3), np.uint8) if out is None else out
    with of_sample(index.token[sample]):
        for image, path, draw, source in zip(out, paths, draws, sizes):
            if path:
                load_image(dataroot / str(path), draw, size, source, image)
            else:
                image[:] = 0
    return out


def normalise(images: "Tensor") -> "Tensor":
    """uint8 (..., H, W, 3) to float32 (..., 3, H, W) with ImageNet's mean 0 and deviation 1, on the images' device."""
    import torch

    from models.constants import constant

    mean, std = (constant(values, torch.float32, images.device) for values in (MEAN, STD))
    return ((images - mean) / std).movedim(-1, -3).contiguous()
