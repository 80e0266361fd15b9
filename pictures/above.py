"""A sample from above, the car's front up, however the LiDAR is turned: nuScenes' has its y axis to the front."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from models.geometry import rotation_z
from pictures.cameras import FINER, Layer
from pictures.palette import LIGHT, Theme
from pictures.strokes import draw_line, write
from storage.index import Index

EGO = np.array([[-0.9, -2], [0.9, -2], [0.9, 2], [-0.9, 2], [-0.9, -2]])  # m, a car
FRONT = np.array([[-0.5, 1.1], [0, 2.0], [0.5, 1.1]])
RINGS = 10  # m
ARROW = 0.5  # s: how far a box goes in this time is drawn
SLOWEST = 0.5  # m/s of a drawn arrow
REACHES = 15.0, 54.0  # m, of a view that shows all boxes
STRAIGHT = np.deg2rad(3)  # a LiDAR that is turned by less is drawn as if it were not


def reach_of(centers: np.ndarray) -> float:
    """How far a view reaches that shows all boxes, by their centres (n, >=2), m."""
    return float(np.clip(np.abs(centers[:, :2]).max(initial=0) + 3, *REACHES))


def front_of(index: Index, sample: int) -> float:
    """Where the car's front is in the sample's LIDAR_TOP frame (rad), counter-clockwise from the y axis."""
    x, y = index.lidar_to_ego[sample, 0, :2]  # of the ego's x axis, in the LiDAR's frame
    turn = float(np.arctan2(-x, y))
    return turn if abs(turn) > STRAIGHT else 0.0


def above(
    size: int,
    reach: float,
    layers: Sequence[Layer] = (),
    points: np.ndarray | None = None,
    map: tuple[np.ndarray, Sequence[float]] | None = None,
    theme: Theme = LIGHT,
    front: float = 0.0,
) -> Image.Image:
    """A square of `size` px that reaches `reach` m from the LiDAR to each side.

    points: (n, >=2) m. map: colours (X, Y, 3) uint8 of cells and what they cover, (x low, y low, ..., x high, y high,
    ...) m, such as a BEV map's range. From each box that moves an arrow shows its way in ARROW s. front:
    see `front_of`.
    """
    side = size * FINER
    image = Image.new("RGB", (side, side), theme.ground)

    turn = rotation_z(front)[:2, :2]

    def straight(xy: np.ndarray) -> np.ndarray:
        return (xy * [1, -1] / reach + 1) * side / 2

    def pixels(xy: np.ndarray) -> np.ndarray:
        return straight(xy @ turn if front else xy)

    if map is not None:
        colours, covers = map
        half = len(covers) // 2
        corners = straight(np.array([[covers[0], covers[half + 1]], [covers[half], covers[1]]]))
        (left, top), (right, bottom) = np.round(corners).astype(int).tolist()
        cells = Image.fromarray(np.ascontiguousarray(colours.swapaxes(0, 1)[::-1]))
        image.paste(cells.resize((right - left, bottom - top), Image.Resampling.NEAREST), (left, top))
        if front:
            image = image.rotate(-np.rad2deg(front), fillcolor=theme.ground)
    draw = ImageDraw.Draw(image)
    for metres in range(RINGS, int(reach * 1.5), RINGS):
        (left, top), (right, bottom) = straight(np.array([[-metres, metres], [metres, -metres]])).tolist()
        draw.ellipse((left, top, right, bottom), outline=theme.faint, width=FINER)
    if points is not None:
        _dots(image, pixels(points[:, :2].astype(np.float64)), theme)
        draw = ImageDraw.Draw(image)
    ink = theme.ink if map is None else (255, 255, 255)
    for outline in (EGO, FRONT):
        draw.line([tuple(p) for p in straight(outline).tolist()], ink, FINER)
    line = max(2, round(size / 350 * FINER))
    for boxes, stroke in layers:
        moving = np.linalg.norm(np.nan_to_num(boxes.velocities), axis=1) > SLOWEST
        for corners, velocity, moves in zip(boxes.corners()[:, :4, :2], boxes.velocities, moving):
            draw_line(draw, pixels(corners[[0, 1, 2, 3, 0]]), stroke, line, casing=map is not None)
            middle, nose = corners.mean(0), (corners[0] + corners[3]) / 2
            end = nose + velocity * ARROW if moves else nose
            draw_line(draw, pixels(np.stack([middle, end])), stroke, line, casing=map is not None)
    image = image.reduce(FINER)
    write(ImageDraw.Draw(image), (8, size - 24), f"rings every {RINGS} m", ink if map is not None else theme.ink, 13)
    return image


def _dots(image: Image.Image, xy: np.ndarray, theme: Theme) -> None:
    """Points (n, 2) px, as squares of FINER px."""
    pixels = np.asarray(image).copy()
    x, y = np.floor(xy).astype(np.int64).T
    for row in range(FINER):
        for column in range(FINER):
            inside = (x + column >= 0) & (x + column < image.width) & (y + row >= 0) & (y + row < image.height)
            pixels[(y + row)[inside], (x + column)[inside]] = theme.point
    image.paste(Image.fromarray(pixels))
