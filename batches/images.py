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
from common.errors import UserError
from common.files import of_sample
from dataroot.images import read_image
from storage.index import Index

if TYPE_CHECKING:
    from torch import Tensor

# ImageNet's, for RGB in 0..255.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


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


def apply_draw(image: np.ndarray, draw: ImageDraw, size: tuple[int, int], source_size: tuple[int, int]) -> np.ndarray:
    """The network's input, uint8 (height, width, 3).

    `image` is the stored one of `source_size` (width, height), whole or decoded at some eighths of its size. Bicubic
    resize, nearest-neighbour rotation, black outside: Pillow's, as in the original. A whole image gives the original's
    pixels to the bit; of a scaled one only the window is resampled, which rounds a few values by 1 or 2 differently.
    """
    from PIL import Image

    left, top = draw.crop
    scaled, target = Image.fromarray(image), resized(source_size, draw.resize)
    if scaled.size == source_size:
        out = scaled.resize(target, Image.Resampling.BICUBIC).crop((left, top, left + size[1], top + size[0]))
    else:
        # Eighths, not the ratio of the sizes: 5/8 of 900 rows are 562.5, decoded as 563.
        eighths = round(8 * scaled.width / source_size[0])
        x, y = (source * eighths / 8 / side for source, side in zip(source_size, target))  # scaled px per target px
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(target[0], left + size[1]), min(target[1], top + size[0])
        window = scaled.resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC, (x0 * x, y0 * y, x1 * x, y1 * y))
        out = Image.new("RGB", size[::-1])
        out.paste(window, (x0 - left, y0 - top))
    if draw.flip:
        out = out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if draw.rotate:
        out = out.rotate(draw.rotate, Image.Resampling.NEAREST)
    return np.asarray(out)


def load_image(path: Path, draw: ImageDraw, size: tuple[int, int], source_size: tuple[int, int]) -> np.ndarray:
    """The network's input from a file, decoded at the cheapest scale, by `apply_draw`. Raises as `read_image` does."""
    wanted = resized(source_size, draw.resize)
    smaller = wanted[0] <= source_size[0] and wanted[1] <= source_size[1]
    return apply_draw(read_image(path, wanted if smaller else None), draw, size, source_size)


def draws_of(
    index: Index, sample: int, config: ImageConfig, generator: np.random.Generator | None = None
) -> list[ImageDraw]:
    """A draw for each camera of a sample, one after the other; nothing random without a generator."""
    sizes = [tuple(size) for size in index.image_size[sample].tolist()]
    if generator is None:
        return [draw_test(config, size) for size in sizes]
    return [draw_training(config, size, generator) for size in sizes]


def load_images(
    index: Index, dataroot: Path, sample: int, draws: Sequence[ImageDraw], size: tuple[int, int]
) -> np.ndarray:
    """A sample's images (N, H, W, 3) uint8 of `size` (H, W). Raises as `read_image` does, naming the sample."""
    return load_paths(index, dataroot, sample, index.camera_path[sample], draws, size)


def load_paths(
    index: Index,
    dataroot: Path,
    sample: int,
    paths: Sequence[str],
    draws: Sequence[ImageDraw],
    size: tuple[int, int],
) -> np.ndarray:
    """The same of other images of the sample's cameras (N,), black where the path is ""."""
    sizes = [tuple(source) for source in index.image_size[sample].tolist()]
    black = np.zeros((*size, 3), np.uint8)
    with of_sample(index.token[sample]):
        return np.stack(
            [
                load_image(dataroot / str(path), draw, size, source) if path else black
                for path, draw, source in zip(paths, draws, sizes)
            ]
        )


def normalise(images: "Tensor") -> "Tensor":
    """uint8 (..., H, W, 3) to float32 (..., 3, H, W) with ImageNet's mean 0 and deviation 1, on the images' device."""
    import torch

    from models.constants import constant

    mean, std = (constant(values, torch.float32, images.device) for values in (MEAN, STD))
    return ((images - mean) / std).movedim(-1, -3).contiguous()
