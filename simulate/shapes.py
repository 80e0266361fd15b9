"""What the ten detection classes look like: each object is a handful of convex solids that fill its box.

An object's frame: x forward, y left, z up, origin below its middle at its lowest surface. `build` fills exactly
x in +-length/2, y in +-width/2, z in 0..height with at least one surface at each end.
"""

from collections.abc import Callable

import numpy as np

from simulate.solids import BANDS, BODY, GLAZING, STRIPES, WHEEL, Paint, Solid, ball, prism, tapered

# Mean length, width, height (m) and their relative spread.
SIZES = {
    "car": ((4.55, 1.92, 1.62), 0.06),
    "truck": ((6.9, 2.45, 2.85), 0.08),
    "construction_vehicle": ((6.3, 2.65, 3.1), 0.07),
    "bus": ((10.8, 2.75, 3.3), 0.05),
    "trailer": ((9.5, 2.6, 3.7), 0.08),
    "barrier": ((0.55, 2.3, 1.0), 0.06),
    "motorcycle": ((2.1, 0.8, 1.5), 0.05),
    "bicycle": ((1.75, 0.62, 1.35), 0.05),
    "pedestrian": ((0.68, 0.66, 1.75), 0.06),
    "traffic_cone": ((0.42, 0.42, 0.95), 0.08),
}


def srgb(code: str) -> tuple[float, float, float]:
    """Linear albedo of a colour written as on a screen, 'c0ffee'."""
    return tuple((int(code[i : i + 2], 16) / 255) ** 2.2 for i in (0, 2, 4))


CAR_COLOURS = [
    srgb(c) for c in ("f2f2ee", "b9bcc0", "7c8084", "202226", "8f1d1d", "1f3f77", "2c5a45", "c8a33a", "5d7f9e")
]
TRUCK_COLOURS = [srgb(c) for c in ("f0f0ec", "c9482b", "2d5ea8", "3d7d52", "d9b23a")]
BUS_COLOURS = [srgb(c) for c in ("d43f2f", "2f7fbf", "e7e4da", "3f9b5f", "e0a32e")]
CLOTHES = [srgb(c) for c in ("2b3a5c", "7a2f35", "d8d4c8", "3c3f42", "4f7d5a", "b5763a", "8a8f98", "c9b458", "6b4a7c")]
TROUSERS = [srgb(c) for c in ("1f2433", "33302c", "5a5f6b", "3b4a66", "6e6250")]
SKIN = [srgb(c) for c in ("e8b894", "c68d66", "8d5a3c")]
TYRE, METAL, DARK = srgb("1c1c1e"), srgb("8d9196"), srgb("2a2c2f")
GLASS = srgb("27323b")
SAFETY_ORANGE, WARNING_YELLOW, HI_VIS = srgb("f0641e"), srgb("eeb11c"), srgb("cfe63a")

LATTICE_WHEEL = Paint(TYRE, METAL, WHEEL, (0.55, 0.0, 0.0), 12.0)


def sample_size(name: str, rng: np.random.Generator) -> np.ndarray:
    """Length, width, height (m) of one object of the class."""
    mean, spread = SIZES[name]
    return np.round(np.array(mean) * np.clip(1 + spread * rng.standard_normal(3), 1 - 2 * spread, 1 + 2 * spread), 3)


def build(name: str, size: np.ndarray, moving: bool, rng: np.random.Generator) -> list[Solid]:
    """The solids of one object of `size` (length, width, height).

    `moving` says that the object moves: it puts a rider on a two-wheeler and makes a pedestrian stride.
    """
    length, width, height = (float(v) for v in size)
    return _BUILDERS[name](length, width, height, moving, rng)


def _block(x, y, z, paint: Paint, top=(1.0, 1.0), shift=0.0) -> Solid:
    """A (tapered) box by its ranges along x, y, z."""
    low, high = np.array([x[0], y[0], z[0]]), np.array([x[1], y[1], z[1]])
    return tapered((high - low) / 2, paint, top, shift).at((high + low) / 2)


def _wheels(xs, width: float, radius: float, thick: float) -> list[Solid]:
    wheel = prism((radius, thick / 2, radius), LATTICE_WHEEL, axis=1)
    return [wheel.at((x, side * (width - thick) / 2, radius)) for x in xs for side in (-1, 1)]


def _pick(colours, rng):
    return colours[rng.integers(len(colours))]


def _car(length, width, height, moving, rng):
    colour = _pick(CAR_COLOURS, rng)
    shine = float(rng.uniform(25, 70))
    body = Paint(colour, DARK, BODY, (-0.62, 0.0, 0.0), shine)
    glass = Paint(colour, GLASS, GLAZING, (-0.95, 0.72, 0.0), 15.0)
    belt = height * 0.56
    kind = rng.integers(3)  # saloon, hatchback, van
    cabin, top, shift = [((-0.42, 0.24), 0.66, -0.02), ((-0.49, 0.2), 0.74, -0.08), ((-0.5, 0.32), 0.84, -0.1)][kind]
    return [
        _block((-length / 2, length / 2), (-width / 2, width / 2), (height * 0.13, belt), body, (0.97, 0.93)),
        _block(
            (cabin[0] * length, cabin[1] * length),
            (-width * 0.46, width * 0.46),
            (belt, height),
            glass,
            (top, 0.8),
            shift,
        ),
        *_wheels((-0.31 * length, 0.31 * length), width, 0.21 * height, 0.24),
    ]


def _truck(length, width, height, moving, rng):
    colour, cargo = _pick(TRUCK_COLOURS, rng), _pick(TRUCK_COLOURS, rng)
    nose = length / 2 - 0.28 * length
    cab_height = height * float(rng.uniform(0.74, 0.9))
    glass = Paint(colour, GLASS, GLAZING, (0.05, 0.85, 0.0), 40.0)
    box = Paint(cargo, tuple(0.75 * c for c in cargo), BODY, (-0.9, 1.2, 0.0), 60.0)
    return [
        _block(
            (nose, length / 2), (-width * 0.48, width * 0.48), (0.16 * height, cab_height), glass, (0.9, 0.95), -0.1
        ),
        _block((-length / 2, nose - 0.1), (-width / 2, width / 2), (0.32 * height, height), box),
        _block(
            (-length / 2 + 0.1, nose + 0.1), (-width * 0.35, width * 0.35), (0.2 * height, 0.32 * height), Paint(DARK)
        ),
        *_wheels((-0.33 * length, 0.36 * length), width * 0.96, min(0.48, 0.17 * height), 0.3),
    ]


def _construction_vehicle(length, width, height, moving, rng):
    """An excavator: tracks, a house with a cab, and an arm that bends down in front."""
    colour = [WARNING_YELLOW, SAFETY_ORANGE][rng.integers(2)]
    paint = Paint(colour, DARK, STRIPES, (9.0, 0.0, 0.0), 70.0)
    glass = Paint(colour, GLASS, GLAZING, (-0.3, 0.8, 0.0), 30.0)
    steel = Paint(tuple(0.8 * c for c in colour), reflectance=60.0)
    rear, front = -length / 2, length / 2
    body_front = rear + 0.55 * length
    elbow = (rear + 0.74 * length, -0.12 * width, height - 0.2)
    track = Paint(TYRE, METAL, BANDS, (-0.3, 0.3, 0.0), 15.0)
    return [
        _block((rear + 0.02 * length, body_front), (-width / 2, -width * 0.26), (0.0, 0.26 * height), track),
        _block((rear + 0.02 * length, body_front), (width * 0.26, width / 2), (0.0, 0.26 * height), track),
        _block((rear, body_front - 0.1), (-width * 0.45, width * 0.45), (0.27 * height, 0.58 * height), paint),
        _block(
            (rear + 0.28 * length, body_front),
            (width * 0.05, width * 0.45),
            (0.58 * height, 0.97 * height),
            glass,
            (0.85, 0.9),
        ),
        _beam((body_front - 0.3, -width * 0.12, 0.5 * height), elbow, 0.17, steel),
        _beam(elbow, (front - 0.32, -width * 0.12, 0.3 * height), 0.14, steel),
        _block(
            (front - 0.65, front),
            (-width * 0.32, width * 0.08),
            (0.03, 0.32 * height),
            Paint(METAL, reflectance=50.0),
            (0.6, 1.0),
        ),
        _block((elbow[0] - 0.15, elbow[0] + 0.15), (-width * 0.2, -width * 0.04), (height - 0.35, height), steel),
    ]


def _beam(start, end, thick: float, paint: Paint) -> Solid:
    """A square beam between two points of the x-z plane (or one parallel to it)."""
    start, end = np.array(start), np.array(end)
    along = (end - start) / np.linalg.norm(end - start)
    side = np.array([0.0, 1.0, 0.0])
    rotation = np.stack([along, side, np.cross(along, side)], 1)
    return tapered((np.linalg.norm(end - start) / 2, thick, thick), paint).at((start + end) / 2, rotation)


def _bus(length, width, height, moving, rng):
    colour = _pick(BUS_COLOURS, rng)
    glass = Paint(colour, GLASS, GLAZING, (0.0, 0.72, 1.45), 45.0)
    skirt = Paint(colour, srgb("e9e9e4"), BODY, (-0.7, 0.0, 0.0), 45.0)
    return [
        _block((-length / 2, length / 2), (-width / 2, width / 2), (0.1 * height, 0.36 * height), skirt),
        _block(
            (-length / 2, length / 2),
            (-width * 0.495, width * 0.495),
            (0.36 * height, height * 0.965),
            glass,
            (0.99, 0.96),
        ),
        _block(
            (-length * 0.3, length * 0.22),
            (-width * 0.32, width * 0.32),
            (height * 0.965, height),
            Paint(srgb("d9d9d4")),
        ),
        *_wheels((-0.29 * length, 0.33 * length), width * 0.99, 0.46, 0.3),
    ]


def _trailer(length, width, height, moving, rng):
    colour = _pick([srgb("e3e3df"), srgb("9aa3a8"), srgb("a8482f"), srgb("39618f")], rng)
    box = Paint(colour, tuple(0.7 * c for c in colour), BODY, (-0.94, 0.6, 0.0), 65.0)
    return [
        _block((-length / 2, length / 2), (-width / 2, width / 2), (0.3 * height, height), box),
        _block(
            (-length / 2 + 0.2, length / 2 - 0.4),
            (-width * 0.3, width * 0.3),
            (0.22 * height, 0.3 * height),
            Paint(DARK),
        ),
        *_wheels((-0.38 * length, -0.27 * length), width * 0.97, 0.13 * height, 0.32),
        _block((0.3 * length, 0.33 * length), (-width * 0.3, -width * 0.2), (0.0, 0.22 * height), Paint(METAL)),
        _block((0.3 * length, 0.33 * length), (width * 0.2, width * 0.3), (0.0, 0.22 * height), Paint(METAL)),
    ]


def _barrier(length, width, height, moving, rng):
    if rng.integers(2):  # concrete, wide foot
        concrete = Paint(srgb("b5b2aa"), srgb("c8402e"), BANDS, (0.45, 0.8, 0.0), 45.0)
        return [
            _block((-length / 2, length / 2), (-width / 2, width / 2), (0.0, 0.28 * height), concrete, (0.7, 1.0)),
            _block(
                (-length * 0.34, length * 0.34), (-width / 2, width / 2), (0.28 * height, height), concrete, (0.55, 1.0)
            ),
        ]
    plank = Paint(srgb("f2f0ea"), srgb("d0342c"), STRIPES, (0.5, 0.0, 0.0), 120.0)
    foot = Paint(srgb("55585c"))
    return [
        _block((-length * 0.1, length * 0.1), (-width / 2, width / 2), (0.58 * height, height), plank),
        _block((-length * 0.1, length * 0.1), (-width / 2, width / 2), (0.2 * height, 0.42 * height), plank),
        _block((-length / 2, length / 2), (-width * 0.42, -width * 0.34), (0.0, 0.2 * height), foot),
        _block((-length / 2, length / 2), (width * 0.34, width * 0.42), (0.0, 0.2 * height), foot),
        _block((-length * 0.09, length * 0.09), (-width * 0.41, -width * 0.35), (0.2 * height, 0.6 * height), foot),
        _block((-length * 0.09, length * 0.09), (width * 0.35, width * 0.41), (0.2 * height, 0.6 * height), foot),
    ]


def _rider(x: float, seat: float, width: float, height: float, rng) -> list[Solid]:
    shirt, trousers = Paint(_pick(CLOTHES, rng), reflectance=35.0), Paint(_pick(TROUSERS, rng), reflectance=25.0)
    head = 0.23
    neck = height - head
    return [
        prism((0.17, width * 0.36, (neck - seat) / 2), shirt, top=0.8).at((x, 0, (neck + seat) / 2)),
        ball((0.12, 0.11, head / 2), Paint(_pick([srgb("f2f2ee"), srgb("b3261e"), DARK], rng))).at(
            (x + 0.05, 0, height - head / 2)
        ),
        _block((x - 0.1, x + 0.32), (-width * 0.3, width * 0.3), (seat - 0.45, seat), trousers),
        _block((x + 0.1, x + 0.5), (-width / 2, width / 2), (seat + 0.22, seat + 0.34), shirt),
    ]


def _two_wheeler(
    length, width, height, tyre: float, radius: float, frame: Paint, bulk: float, seat: float, moving, rng
):
    """Two wheels in line, a frame of some bulk between them, handlebars, and the rider."""
    wheel = prism((radius, tyre / 2, radius), LATTICE_WHEEL, axis=1)
    front, rear = length / 2 - radius, radius - length / 2
    bar = seat + 0.2 if moving else height
    out = [
        wheel.at((front, 0, radius)),
        wheel.at((rear, 0, radius)),
        _block((rear, front * 0.8), (-bulk / 2, bulk / 2), (radius, seat), frame, (0.75, 1.0), -0.1),
        _block((front * 0.62, front * 0.62 + 0.1), (-0.03, 0.03), (radius, bar - 0.04), Paint(METAL)),
        _block((front * 0.55, front * 0.55 + 0.14), (-width / 2, width / 2), (bar - 0.08, bar), Paint(DARK)),
    ]
    return out + (_rider(-0.12 * length, seat, width, height, rng) if moving else [])


def _motorcycle(length, width, height, moving, rng):
    frame = Paint(_pick(CAR_COLOURS, rng), DARK, BODY, (-0.2, 0.0, 0.0), 40.0)
    return _two_wheeler(length, width, height, 0.2, 0.32, frame, 0.34, 0.8 if moving else height * 0.7, moving, rng)


def _bicycle(length, width, height, moving, rng):
    frame = Paint(_pick(CAR_COLOURS, rng), reflectance=45.0)
    return _two_wheeler(length, width, height, 0.06, 0.34, frame, 0.08, 0.85 if moving else height * 0.66, moving, rng)


def _pedestrian(length, width, height, moving, rng):
    trousers = Paint(_pick(TROUSERS, rng), reflectance=25.0)
    shirt = Paint(_pick(CLOTHES, rng), HI_VIS, BANDS if rng.random() < 0.2 else 0, (-0.6, 0.5, 0.0), 35.0)
    hip, neck = 0.47 * height, 0.86 * height
    head = (height - neck) / 2
    stride = length / 2 if moving else 0.14  # a walker's legs reach from end to end of the box
    leg = 0.085
    legs = [
        _block((stride - 2 * leg, stride), (0.02, 0.16), (0.0, 0.05), Paint(DARK)),
        _block((-stride, -stride + 2 * leg), (-0.16, -0.02), (0.0, 0.05), Paint(DARK)),
        _beam((stride - leg, 0.09, 0.09), (0.04, 0.09, hip), leg * 0.8, trousers),
        _beam((-stride + leg, -0.09, 0.09), (-0.04, -0.09, hip), leg * 0.8, trousers),
    ]
    arms = 1.0 if moving else length / 0.44  # someone who stands holds a bag in front
    out = [
        *legs,
        prism((0.15, width * 0.36, (neck - hip) / 2), shirt, top=0.85).at((0, 0, (neck + hip) / 2)),
        _block(
            (-0.07 * arms, 0.22 * arms),
            (width / 2 - 0.11, width / 2),
            (hip - 0.02, neck - 0.12),
            shirt,
            (0.6, 0.9),
            -0.3,
        ),
        _block(
            (-0.22 * arms, 0.07 * arms),
            (-width / 2, 0.11 - width / 2),
            (hip - 0.02, neck - 0.12),
            shirt,
            (0.6, 0.9),
            0.3,
        ),
        ball((0.11, 0.1, head), Paint(_pick(SKIN, rng), reflectance=45.0)).at((0.02, 0, height - head)),
    ]
    return out


def _cone(length, width, height, moving, rng):
    paint = Paint(SAFETY_ORANGE, srgb("f4f4f0"), BANDS, (-0.05, 0.4, 0.0), 140.0)
    return [
        _block(
            (-length / 2, length / 2),
            (-width / 2, width / 2),
            (0.0, 0.07),
            Paint(tuple(0.5 * c for c in SAFETY_ORANGE)),
        ),
        prism((length * 0.42, width * 0.42, (height - 0.07) / 2), paint, top=0.22).at((0, 0, (height + 0.07) / 2)),
    ]


_BUILDERS: dict[str, Callable[..., list[Solid]]] = {
    "car": _car,
    "truck": _truck,
    "construction_vehicle": _construction_vehicle,
    "bus": _bus,
    "trailer": _trailer,
    "barrier": _barrier,
    "motorcycle": _motorcycle,
    "bicycle": _bicycle,
    "pedestrian": _pedestrian,
    "traffic_cone": _cone,
}
