"""Colours that people with any kind of colour vision tell apart, and the words that go with them.

Of the eight colours of Okabe and Ito (Color Universal Design, 2008). No picture says anything by colour alone:
predicted boxes are dashed, true ones are not, and a legend names both.
"""

from dataclasses import dataclass

import numpy as np

from models.names import CLASSES

Colour = tuple[int, int, int]

ORANGE, SKY, GREEN = (230, 159, 0), (86, 180, 233), (0, 158, 115)
BLUE, VERMILLION, PURPLE, GREY = (0, 114, 178), (213, 94, 0), (204, 121, 167), (140, 140, 140)

KINDS: dict[str, tuple[Colour, tuple[str, ...]]] = {
    "car": (SKY, ("car",)),
    "other vehicle": (BLUE, ("truck", "bus", "trailer", "construction_vehicle")),
    "pedestrian": (ORANGE, ("pedestrian",)),
    "cycle": (GREEN, ("motorcycle", "bicycle")),
    "barrier": (PURPLE, ("barrier",)),
    "cone": (VERMILLION, ("traffic_cone",)),
}
NO_CLASS = "no class"
KIND_OF = {name: kind for kind, (_, names) in KINDS.items() for name in names}


@dataclass(frozen=True)
class Theme:
    """The colours of the view from above and of what stands around a picture."""

    ground: Colour
    ink: Colour
    faint: Colour  # rings and secondary words
    point: Colour  # a LiDAR point


LIGHT = Theme((255, 255, 255), (30, 30, 34), (196, 196, 202), (110, 110, 118))
DARK = Theme((18, 18, 22), (232, 232, 236), (62, 62, 70), (150, 150, 160))
THEMES = {"light": LIGHT, "dark": DARK}


def kind_of(label: int) -> str:
    """The name in KINDS of a class's number in CLASSES, NO_CLASS of -1."""
    return KIND_OF[CLASSES[label]] if label >= 0 else NO_CLASS


def colour_of(kind: str) -> Colour:
    return KINDS[kind][0] if kind in KINDS else GREY


# matplotlib's plasma and viridis at nine places: both grow evenly in lightness, whatever one's colour vision.
PLASMA = np.array(
    [
        [13, 8, 135],
        [76, 2, 161],
        [126, 3, 168],
        [170, 35, 149],
        [204, 71, 120],
        [230, 108, 92],
        [248, 149, 64],
        [253, 197, 39],
        [240, 249, 33],
    ],
    np.float32,
)
VIRIDIS = np.array(
    [
        [68, 1, 84],
        [71, 45, 123],
        [59, 82, 139],
        [44, 114, 142],
        [33, 145, 140],
        [40, 174, 128],
        [94, 201, 98],
        [173, 220, 48],
        [253, 231, 37],
    ],
    np.float32,
)


def scale(values: np.ndarray, colours: np.ndarray = VIRIDIS) -> np.ndarray:
    """(..., 3) uint8 of values (...) in 0..1; what lies beyond is the end's."""
    place = np.clip(values, 0, 1) * (len(colours) - 1)
    low = np.minimum(place.astype(np.int64), len(colours) - 2)
    part = (place - low)[..., None]
    return np.round(colours[low] * (1 - part) + colours[low + 1] * part).astype(np.uint8)
