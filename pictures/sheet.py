"""A whole sample on one sheet: its camera images in two rows, the view from above beside them, a title and a legend."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from pictures.cameras import DEPTHS, depth_colours, depth_scale, named, rows_of
from pictures.palette import Theme
from pictures.strokes import Stroke, font, legend, write
from storage.index import Index

GAP, TITLE, BAR = 6, 34, 40  # px


def sheet(
    index: Index,
    sample: int,
    camera: Callable[[int, int], Image.Image],
    above: Callable[[int], Image.Image],
    title: str,
    key: Sequence[tuple[str, Stroke]],
    theme: Theme,
    width: int,
    depth_bar: bool = False,
) -> Image.Image:
    """An image of `width` px. camera: (camera, width) -> its image. above: size -> a square. key: the legend's entries.

    depth_bar: with the scale of the colours of depth.
    """
    rows = rows_of(index, sample)
    columns, highest = max(map(len, rows)), [_highest(index, sample, row) for row in rows]
    tile = int((width - (columns + 2) * GAP) / (columns + sum(highest)))  # the square is as high as all rows
    cameras = camera_rows(index, sample, camera, tile, theme)
    feet = [legend(key, theme, width), *([_depth_bar(theme, width)] if depth_bar else [])]
    top = TITLE + cameras.height + GAP
    out = Image.new("RGB", (width, top + sum(foot.height for foot in feet)), theme.ground)
    write(ImageDraw.Draw(out), (GAP + 2, 8), title, theme.ink, 16)
    out.paste(cameras, (GAP, TITLE))
    out.paste(above(cameras.height), (2 * GAP + cameras.width, TITLE))
    for foot in feet:
        out.paste(foot, (0, top))
        top += foot.height
    return out


def camera_rows(
    index: Index, sample: int, camera: Callable[[int, int], Image.Image], tile: int, theme: Theme
) -> Image.Image:
    """The named images, `tile` px wide each; a row is as high as its highest, lower ones stand in its middle."""
    rows = rows_of(index, sample)
    heights = [round(tile * _highest(index, sample, row)) for row in rows]
    size = max(map(len, rows)) * (tile + GAP) - GAP, sum(heights) + GAP * (len(rows) - 1)
    out, top = Image.new("RGB", size, theme.ground), 0
    for row, height in zip(rows, heights):
        for column, number in enumerate(row):
            picture = named(camera(number, tile), index.cameras[number])
            out.paste(picture, (column * (tile + GAP), top + (height - picture.height) // 2))
        top += height + GAP
    return out


def _highest(index: Index, sample: int, cameras: Sequence[int]) -> float:
    """Height over width of the highest of the cameras' images."""
    widths, heights = index.image_size[sample, cameras].T
    return float((heights / widths).max())


def _depth_bar(theme: Theme, width: int) -> Image.Image:
    bar = Image.new("RGB", (width, BAR), theme.ground)
    draw, length, left = ImageDraw.Draw(bar), width // 3, 8
    colours = depth_colours(np.geomspace(*DEPTHS, length))
    bar.paste(Image.fromarray(np.ascontiguousarray(np.broadcast_to(colours, (12, length, 3)))), (left, 4))
    for metres in (2, 5, 10, 20, 40, 60):
        at = left + float(depth_scale(np.array([metres]))[0]) * length
        words = f"{metres} m" if metres == DEPTHS[1] else f"{metres}"
        write(draw, (max(left, at - font(13).getlength(words) / 2), 20), words, theme.ink, 13)
    return bar
