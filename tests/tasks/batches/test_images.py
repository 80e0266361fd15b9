import io

import numpy as np
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
    draw_test,
    draw_training,
    load_image,
    normalise,
    post_homography,
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


def test_normalise():
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    expected = ((image - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(normalise(torch.from_numpy(image)), expected, atol=1e-5)
