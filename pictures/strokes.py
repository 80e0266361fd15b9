"""Lines, words and legends on Pillow images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pictures.palette import Colour, Theme

CASING: Colour = (0, 0, 0)  # beneath a line on a photograph, so that it stands out from whatever is there
DASH, GAP = 5.0, 3.5  # in line widths
SWATCH = 40  # px of a legend's line


@dataclass(frozen=True)
class Stroke:
    """How a layer's lines are drawn."""

    colour: Colour
    dashed: bool = False


def draw_line(draw: ImageDraw.ImageDraw, points: np.ndarray, stroke: Stroke, width: int, casing: bool = False) -> None:
    """A line through points (n, 2) px. casing: with a dark rim."""
    pieces = list(_dashes(points, DASH * width, GAP * width)) if stroke.dashed else [points]
    for add, colour in ((2 * max(1, width // 3), CASING), (0, stroke.colour)) if casing else ((0, stroke.colour),):
        for piece in pieces:
            draw.line([tuple(point) for point in piece.tolist()], colour, width + add)


def _dashes(points: np.ndarray, dash: float, gap: float) -> Iterator[np.ndarray]:
    """The drawn pieces (2, 2) of a line, each of its edges beginning and ending with one."""
    for a, b in pairwise(points):
        length = float(np.hypot(*(b - a)))
        count = max(1, min(400, round((length + gap) / (dash + gap))))
        whole = length / (count + (count - 1) * gap / dash)  # a dash's length where they fill the edge
        for number in range(count):
            start = number * whole * (1 + gap / dash)
            ends = np.array([start, start + whole]) / max(length, 1e-9)
            yield a + (b - a) * ends[:, None]


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def write(draw: ImageDraw.ImageDraw, at: tuple[float, float], words: str, colour: Colour, size: int = 14) -> None:
    """Words from their top left corner."""
    draw.text(at, words, colour, font=font(size))


def label(draw: ImageDraw.ImageDraw, at: tuple[float, float], words: str, size: int = 14) -> None:
    """White words on a dark plate, for photographs."""
    left, top, right, bottom = draw.textbbox(at, words, font=font(size))
    draw.rectangle((left - 4, top - 3, right + 4, bottom + 3), (20, 20, 24))
    draw.text(at, words, (245, 245, 245), font=font(size))


def legend(entries: Sequence[tuple[str, Stroke]], theme: Theme, width: int, size: int = 14) -> Image.Image:
    """Lines and their words in rows, as many as `width` px need."""
    row, at, places = 0, 8.0, []
    for words, _ in entries:
        need = SWATCH + 8 + font(size).getlength(words) + 20
        if at + need > width and at > 8:
            row, at = row + 1, 8.0
        places.append((at, row))
        at += need
    line = size + 10
    image = Image.new("RGB", (width, (row + 1) * line if entries else 0), theme.ground)
    draw = ImageDraw.Draw(image)
    for (words, stroke), (x, row) in zip(entries, places):
        middle = row * line + line / 2
        draw_line(draw, np.array([[x, middle], [x + SWATCH, middle]]), stroke, 3)
        write(draw, (x + SWATCH + 8, middle - size * 0.62), words, theme.ink, size)
    return image
