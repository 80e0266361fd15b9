import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.batches.images import (
    MEAN,
    STD,
    ImageConfig,
    ImageDraw,
    apply_draw,
    decode,
    draw_image,
    draw_test,
    draw_training,
    load_image,
    normalise,
    post_homography,
    resized,
)


def pattern(width, height):
    """Red grows with x, green with y."""
    x, y = np.meshgrid(np.linspace(40, 215, width), np.linspace(40, 215, height))
    return np.stack([x, y, np.full_like(x, 128)], -1).round().astype(np.uint8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(400, 225), (800, 450), (352, 198)]))
def test_the_homography_says_where_pixels_went(seed, source):
    config = ImageConfig(size=(128, 352), rotate=20)
    draw = draw_training(config, source, np.random.default_rng(seed))
    out = apply_draw(pattern(*source), draw, config.size, source)
    back = np.linalg.inv(post_homography(draw, config.size))
    for u, v in ((176, 64), (100, 100), (250, 40)):
        x, y = (back @ [u, v, 1, 1])[:2]
        if not (5 < x < source[0] - 5 and 5 < y < source[1] - 5):
            continue
        expected = 40 + 175 * np.array([x / source[0], y / source[1]])
        np.testing.assert_allclose(out[v, u, :2], expected, atol=3.5)


def test_what_is_cut_at_the_bottom_moves_the_window_up():
    def window(cut):
        random = np.random.default_rng(0)
        return draw_image((1600, 900), (256, 704), random, (0.48, 0.48), (0, 0), False, cut)

    assert window(None).crop[1] == window((0.0, 0.0)).crop[1] == 432 - 256
    assert window((0.25, 0.25)).crop[1] == 324 - 256


def test_another_source_size_gives_the_same_view():
    """Augmentation is relative: the same draw of a smaller camera shows the same part of the scene."""
    config = ImageConfig(size=(128, 352))
    large, small = (draw_training(config, size, np.random.default_rng(3)) for size in ((1600, 900), (400, 225)))
    to_large = np.diag([4.0, 4.0, 1, 1])
    np.testing.assert_allclose(
        post_homography(large, config.size) @ to_large, post_homography(small, config.size), atol=1.5
    )


def jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95)
    return file.getvalue()


def test_decoding_takes_the_cheapest_scale_that_serves(tmp_path):
    data = jpeg(pattern(1600, 900))
    assert decode(data).shape == (900, 1600, 3)
    assert decode(data, (704, 396)).shape == (450, 800, 3)
    (tmp_path / "a.jpg").write_bytes(data)
    config = ImageConfig(size=(256, 704))
    draw = draw_test(config, (1600, 900))
    cheap = load_image(tmp_path / "a.jpg", draw, config.size, (1600, 900)).astype(int)
    whole = apply_draw(decode(data), draw, config.size, (1600, 900))
    assert np.abs(cheap - whole).mean() < 1
    enlarged = load_image(tmp_path / "a.jpg", ImageDraw(1.5, (0, 0)), (64, 64), (1600, 900))
    assert enlarged.shape == (64, 64, 3)


@pytest.mark.parametrize("eighths", range(1, 9))
def test_a_scaled_decode_shows_the_same_pixels_in_the_same_places(eighths, tmp_path):
    """Waves that a pixel's shift would blur, at each scale, cut at all sides: 5/8 of 450 rows are 281.25, not 282."""
    source = (800, 450)
    x, y = np.meshgrid(np.arange(source[0]), np.arange(source[1]))
    image = np.stack([128 + 60 * np.sin(x / 9), 128 + 60 * np.sin(y / 7), 128 + 60 * np.sin((x + y) / 11)], -1)
    (tmp_path / "a.jpg").write_bytes(jpeg(image.round().astype(np.uint8)))
    width, height = resized(source, eighths / 8 - 0.01)
    for crop, size in (
        ((width // 3, height // 2), (height // 3, width // 2)),
        ((-5, -7), (height + 20, width + 30)),
        ((4, height - height // 2), (height // 2, width - 4)),
    ):
        draw = ImageDraw(eighths / 8 - 0.01, crop)
        found = load_image(tmp_path / "a.jpg", draw, size, source).astype(int)
        wanted = apply_draw(decode((tmp_path / "a.jpg").read_bytes()), draw, size, source)
        assert found.shape == (*size, 3)
        assert np.abs(found - wanted).mean() < 1.6
        assert np.abs(found - wanted).max() <= 10
        inside = np.zeros(size, bool)
        inside[max(0, -crop[1]) : height - crop[1], max(0, -crop[0]) : width - crop[0]] = True
        assert (found[~inside] == 0).all()


def test_normalise():
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    expected = ((image - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(normalise(torch.from_numpy(image)), expected, atol=1e-5)
