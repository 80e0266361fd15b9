import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from batches.images import (
    MEAN,
    STD,
    ImageConfig,
    ImageDraw,
    apply_draw,
    draw_image,
    draw_test,
    draw_training,
    fitting,
    load_image,
    normalise,
    post_homography,
    resized,
)
from common.errors import UserError
from dataroot.images import decode


def pattern(width, height):
    """Red grows with x, green with y."""
    x, y = np.meshgrid(np.linspace(40, 215, width), np.linspace(40, 215, height))
    return np.stack([x, y, np.full_like(x, 128)], -1).round().astype(np.uint8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(400, 225), (800, 450), (352, 198)]))
def test_the_homography_says_where_pixels_went(seed, source):
    config = ImageConfig(size=(128, 352), rot=(-20, 20))
    draw = draw_training(config, source, np.random.default_rng(seed))
    out = apply_draw(pattern(*source), draw, config.size, source)
    back = np.linalg.inv(post_homography(draw, config.size))
    for u, v in ((176, 64), (100, 100), (250, 40)):
        x, y = (back @ [u, v, 1, 1])[:2]
        if not (5 < x < source[0] - 5 and 5 < y < source[1] - 5):
            continue
        expected = 40 + 175 * np.array([x / source[0], y / source[1]])
        np.testing.assert_allclose(out[v, u, :2], expected, atol=3.5)


def as_bevdet(config, source, random):
    """BEVDet's PrepareImageInputs.sample_augmentation line by line; random: NumPy's old generator, None in a test."""
    (fH, fW), (W, H) = config.size, source
    resize = float(fW) / float(W)
    resize += config.resize_test if random is None else random.uniform(*config.resize)
    newW, newH = int(W * resize), int(H * resize)
    if random is None:
        crop_h = int((1 - np.mean(config.crop_h)) * newH) - fH
        return resize, (int(max(0, newW - fW) / 2), crop_h), False, 0
    crop_h = int((1 - random.uniform(*config.crop_h)) * newH) - fH
    crop_w = int(random.uniform(0, max(0, newW - fW)))
    flip = config.flip and random.choice([0, 1])
    return resize, (crop_w, crop_h), bool(flip), random.uniform(*config.rot)


@pytest.mark.parametrize("source", [(1600, 900), (1920, 1280), (1920, 886), (640, 480)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"crop_h": (0.1, 0.3), "rot": (-2, 7), "flip": False},
        {"crop_h": (0.25, 0.25), "resize": (0.0, 0.0), "resize_test": 0.04, "size": (128, 352)},
        {"crop_h": (0.0, 0.37), "resize_test": -0.03, "size": (512, 1408)},
    ],
)
def test_draws_are_bevdets(settings, source):
    config = ImageConfig(**settings)
    drawn = draw_test(config, source)
    assert (drawn.resize, drawn.crop, drawn.flip, drawn.rotate) == as_bevdet(config, source, None)
    ours, theirs = np.random.RandomState(3), np.random.RandomState(3)
    resize = [config.size[1] / source[0] + added for added in config.resize]
    for _ in range(20):
        drawn = draw_image(source, config.size, ours, resize, config.rot, config.flip, config.crop_h)
        factor, *wanted = as_bevdet(config, source, theirs)
        assert [drawn.crop, drawn.flip, drawn.rotate] == wanted
        assert drawn.resize == pytest.approx(factor, rel=1e-14)


def test_training_draws_what_the_config_says():
    config = ImageConfig(crop_h=(0.1, 0.3), resize=(0.02, 0.07), rot=(-2, 7))
    ours, theirs = np.random.RandomState(3), np.random.RandomState(3)
    for _ in range(20):
        drawn, (factor, *wanted) = draw_training(config, (1600, 900), ours), as_bevdet(config, (1600, 900), theirs)
        assert [drawn.crop, drawn.flip, drawn.rotate] == wanted
        assert drawn.resize == pytest.approx(factor, rel=1e-14)
    unflipped = config.model_copy(update={"flip": False})
    assert not any(draw_training(unflipped, (1600, 900), ours).flip for _ in range(20))


def test_what_no_range_cuts_draws_no_number():
    """Trainings from before crop_h keep theirs."""
    without, generator = np.random.default_rng(5), np.random.default_rng(5)
    draw = draw_training(ImageConfig(), (1600, 900), without)
    assert draw == draw_image((1600, 900), (256, 704), generator, (0.38, 0.55), (-5.4, 5.4), True)
    assert without.uniform() == generator.uniform()


@pytest.mark.parametrize(("source", "width"), [(1600, 928), (1440, 832), (1550, 864), (1224, 448)])
def test_an_image_that_fits_has_no_black_column(source, width):
    """source * (width / source) is a hair less than width there, and pixels are counted by truncation."""
    assert int(source * (width / source)) == width - 1
    size = (64, width)
    draw = draw_test(ImageConfig(size=size), (source, 300))
    out = apply_draw(np.full((300, source, 3), 200, np.uint8), draw, size, (source, 300))
    assert (out == 200).all()


@settings(max_examples=200, deadline=None)
@given(st.integers(64, 4096), st.integers(32, 2048))
def test_the_fitting_factor_fits(source, width):
    assert int(source * fitting(source, width)) == width
    assert fitting(source, width) == pytest.approx(width / source, rel=1e-15)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"zoom": [0.38 / 0.44, 1.25]}, r"zoom is resize now: .* 1600 px write resize: \[-0\.06, 0\.11\]"),
        ({"zoom": [1, 1], "size": [128, 352]}, r"write resize: \[0, 0\]"),
        ({"zoom": [0.9318181818, 1.125], "size": [512, 1408]}, r"write resize: \[-0\.06, 0\.11\]"),
        ({"test_zoom": 0.48 / 0.44}, r"test_zoom is resize_test now: .* write resize_test: 0\.04"),
        ({"rotate": 5.4}, r"rotate is rot now: write rot: \[-5\.4, 5\.4\]"),
        ({"zoom": "wide"}, r"zoom is resize now: see docs/finetuning\.md"),
        ({"resize": (0.2, 0.1)}, "resize .* must ascend"),
        ({"crop_h": (0.2, 1.0)}, r"crop_h .* must lie in \[0, 1\)"),
        ({"crop_h": (-0.1, 0.1)}, r"crop_h .* must lie in \[0, 1\)"),
        ({"size": (0, 64)}, "size .* must be positive"),
    ],
)
def test_a_field_of_before_or_without_meaning_is_a_sentence(given, sentence):
    with pytest.raises(ValidationError, match=sentence):
        ImageConfig(**given)


def test_a_resize_that_leaves_nothing_is_a_sentence():
    with pytest.raises(UserError, match=r"image\.resize_test -0\.44 leaves nothing of an image of 1600x900 px"):
        draw_test(ImageConfig(resize_test=-0.44), (1600, 900))
    with pytest.raises(UserError, match=r"image\.resize -0\.5 leaves nothing of an image of 1600x900 px"):
        draw_training(ImageConfig(resize=(-0.5, 0.0)), (1600, 900), np.random.default_rng(0))


def test_another_source_size_gives_the_same_view():
    """Where no resize is added, the same draw of a smaller camera shows the same part of the scene."""
    config = ImageConfig(size=(128, 352), resize=(0, 0))
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
