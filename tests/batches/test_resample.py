"""Pixels against Pillow's, bit by bit: rows resized first, then columns, cut, mirrored, rotated."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from batches.images import ImageDraw, apply_draw, resized

BICUBIC = Image.Resampling.BICUBIC


def rows_then_columns(image, wanted, box):
    """Pillow's resize in two calls: in one, versions since 13 choose by the sizes what comes first."""
    wide = image.resize((wanted[0], image.height), BICUBIC, (box[0], 0, box[2], image.height))
    return wide.resize(wanted, BICUBIC, (0, box[1], wanted[0], box[3]))


def by_pillow(pixels, draw, size, source):
    """What `apply_draw` says it does, of whole images or of their windows."""
    image, (left, top), target = Image.fromarray(pixels), draw.crop, resized(source, draw.resize)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(target[0], left + size[1]), min(target[1], top + size[0])
    if image.size == source:
        whole = rows_then_columns(image, target, (0, 0, *image.size))
        out = whole.crop((left, top, left + size[1], top + size[0]))
    else:
        out = Image.new("RGB", size[::-1])
        eighths = round(8 * image.width / source[0])
        x, y = (side * eighths / 8 / px for side, px in zip(source, target))
        if x1 > x0 and y1 > y0:
            window = rows_then_columns(image, (x1 - x0, y1 - y0), (x0 * x, y0 * y, x1 * x, y1 * y))
            out.paste(window, (x0 - left, y0 - top))
    if draw.flip:
        out = out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(out.rotate(draw.rotate, Image.Resampling.NEAREST))


def noise(seed, width, height, grey):
    """Half of it black and white, where rounding overshoots; grey in all channels, as a grey JPEG is read."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 1 if grey else 3), np.uint8)
    pixels = np.where(random.random(pixels.shape) < 0.5, np.where(pixels > 127, 255, 0), pixels).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3)))


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    source=st.tuples(st.integers(1, 150), st.integers(1, 90)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 90)),
    factor=st.floats(0.08, 2.5),
    crop=st.tuples(st.integers(-40, 120), st.integers(-40, 90)),
    flip=st.booleans(),
    rotate=st.one_of(st.floats(-30, 30), st.sampled_from([0.0, 1e-17, 1e-9, 45.0, 90.0, 180.0, -90.0, 270.0, 361.5])),
    eighths=st.sampled_from([8, 8, 8, 5, 4, 3, 1]),
    grey=st.booleans(),
)
def test_pixels_are_pillows(seed, source, size, factor, crop, flip, rotate, eighths, grey):
    assume(min(resized(source, factor)) >= 1)
    scaled = tuple(-(-side * eighths // 8) for side in source)
    assume(round(8 * scaled[0] / source[0]) == eighths)  # a few pixels do not tell; cameras have more
    pixels, draw = noise(seed, *scaled, grey), ImageDraw(factor, crop, flip, rotate)
    try:
        wanted = by_pillow(pixels, draw, size, source)
    except ValueError as error:  # a box that rounding puts beyond the image, of an image some pixels small
        assume("Box can't exceed" not in str(error))
        raise
    np.testing.assert_array_equal(apply_draw(pixels, draw, size, source), wanted)


@pytest.mark.parametrize("eighths", [4, 5, 8])
@pytest.mark.parametrize("draw", [ImageDraw(0.47, (24, 160), True, 4.3), ImageDraw(0.38, (0, 86), False, -5.1)])
def test_a_nuscenes_image(eighths, draw):
    pixels = noise(eighths, 1600 * eighths // 8, -(-900 * eighths // 8), grey=False)
    out = np.full((256, 704, 3), 7, np.uint8)
    assert apply_draw(pixels, draw, (256, 704), (1600, 900), out) is out
    np.testing.assert_array_equal(out, by_pillow(pixels, draw, (256, 704), (1600, 900)))


@pytest.mark.parametrize("wanted", [(704, 396), (608, 342), (881, 495), (352, 198)])
def test_the_original_resizes_in_one_call(wanted):
    """It is one order or the other, and of the sizes in use the other is a few values' rounding away."""
    image = Image.fromarray(noise(3, 1600, 900, grey=False))
    once = np.asarray(image.resize(wanted, BICUBIC)).astype(int)
    rows_first = np.asarray(rows_then_columns(image, wanted, (0, 0, *image.size)))
    columns_first = image.resize((1600, wanted[1]), BICUBIC).resize(wanted, BICUBIC)
    assert np.array_equal(once, rows_first) or np.array_equal(once, columns_first)


def test_a_window_beside_the_image_is_black():
    for eighths in (8, 4):
        pixels = noise(0, 10 * eighths, 5 * eighths, grey=False)
        for crop in ((500, 0), (-500, 0), (0, 500), (0, -500)):
            assert not apply_draw(pixels, ImageDraw(0.5, crop, True, 3.0), (20, 30), (80, 40)).any()
