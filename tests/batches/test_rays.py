"""Rays of a camera that was made up, against projection by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batches.images import ImageDraw, post_homography
from batches.rays import SKY, STEP, Box, View, draw_rays, pixel_directions, sky_free_pixels, visible_points
from models import geometry

BOX = Box((-30.0, -30.0, -4.0), (30.0, 30.0, 4.0))
SIZE, SOURCE = (64, 96), np.array([160, 100])


def some_view(generator: np.random.Generator, draw: ImageDraw | None = None) -> View:
    """A camera that looks about horizontally, near the LiDAR; its image's red is the row, its green the column."""
    yaw = generator.uniform(-np.pi, np.pi)
    level = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # camera -> LiDAR: z forward to x, x right to -y, y down
    pose = geometry.transform(geometry.rotation_z(yaw) @ level, generator.uniform(-1, 1, 3))
    intrinsics = np.array([[90.0, 0, 80], [0, 95.0, 50], [0, 0, 1]])
    post = post_homography(draw or ImageDraw(0.7, (4, 2)), SIZE)
    rows, columns = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]), indexing="ij")
    return View(pose, intrinsics, post, SOURCE, np.stack([rows, columns, 0 * rows], -1).astype(np.uint8))


def pixel_by_hand(view: View, point: np.ndarray) -> tuple[float, float]:
    """(row, column) in the network's input of one point in the LiDAR's frame."""
    x, y, z, _ = np.linalg.inv(view.camera_to_lidar) @ [*point, 1]
    u, v, _ = view.intrinsics @ [x / z, y / z, 1]
    column, row, *_ = view.post_homography @ [u, v, z, 1]
    return row, column


@given(st.integers(0, 2**32), st.booleans(), st.floats(-5, 5), st.integers(1, 200))
@settings(max_examples=20, deadline=None)
def test_a_ray_with_a_depth_ends_at_its_point_and_has_its_colour(seed, flip, rotate, count):
    generator = np.random.default_rng(seed)
    view = some_view(generator, ImageDraw(0.7, (4, 2), flip, rotate))
    points = generator.uniform(-40, 40, (3000, 3)) * [1, 1, 0.1]
    rays = draw_rays(points, [view], count, BOX, generator)
    assert rays.cast.sum() <= count
    measured = rays.depths > 0
    ends = (rays.origins + rays.directions * rays.depths[:, None]).astype(np.float64)
    for end, (camera, row, column), colour in zip(ends[measured], rays.pixels[measured], rays.colours[measured]):
        assert np.abs(points - end).max(1).min() < 1e-4
        assert (end > BOX.low).all()
        assert (end < BOX.high).all()
        by_hand = pixel_by_hand(view, end)
        assert camera == 0
        assert row == pytest.approx(by_hand[0] - 0.5, abs=0.51)
        assert column == pytest.approx(by_hand[1] - 0.5, abs=0.51)
        assert (255 * colour[:2]).round().tolist() == [row, column]


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=10, deadline=None)
def test_a_ray_of_colour_alone_goes_through_the_middle_of_its_pixel(seed, flip):
    generator = np.random.default_rng(seed)
    view = some_view(generator, ImageDraw(0.7, (4, 2), flip))
    rays = draw_rays(np.zeros((0, 3)), [view], 30, BOX, generator)
    assert rays.cast.sum() == 30
    assert (rays.depths == 0).all()
    assert np.linalg.norm(rays.directions, axis=1) == pytest.approx(1, abs=1e-6)
    for origin, direction, (_, row, column) in zip(rays.origins, rays.directions, rays.pixels):
        assert pixel_by_hand(view, origin + 7.0 * direction) == pytest.approx((row + 0.5, column + 0.5), abs=1e-3)
        assert row >= int(SKY * SIZE[0])


def test_points_come_first_and_pixels_fill_up():
    generator = np.random.default_rng(0)
    view = some_view(generator)
    points = generator.uniform(-25, 25, (4000, 3)) * [1, 1, 0.05]
    seen, _ = visible_points(points, view)
    few = draw_rays(points, [view], len(seen) + 5, BOX, generator)
    assert (few.depths > 0).sum() == len(seen)
    assert few.cast.sum() == len(seen) + 5
    many = draw_rays(points, [view], 20, BOX, generator)
    assert (many.depths > 0).all()
    assert len(np.unique(many.depths)) == 20  # without replacement


def test_a_camera_that_is_not_there_has_no_rays():
    generator = np.random.default_rng(0)
    rays = draw_rays(generator.uniform(-20, 20, (500, 3)), [None, some_view(generator)], 16, BOX, generator)
    assert rays.cast.tolist() == [False] * 16 + [True] * 16
    assert (rays.pixels[16:, 0] == 1).all()
    assert np.linalg.norm(rays.directions, axis=1) == pytest.approx(1)
    assert np.isfinite(np.concatenate([field.ravel() for field in rays])).all()


def test_no_colour_is_taken_from_beside_the_stored_image():
    view = some_view(np.random.default_rng(0), ImageDraw(0.3, (-20, -10)))  # half of the input is black
    pixels = sky_free_pixels(view)
    assert 0 < len(pixels) < len(range(int(SKY * SIZE[0]), SIZE[0], STEP)) * len(range(0, SIZE[1], STEP))
    ends = view.camera_to_lidar[:3, 3] + 3 * pixel_directions(pixels, view)
    x, y, z = geometry.apply(geometry.inverse(view.camera_to_lidar), ends).T
    u, v = view.intrinsics[0, 0] * x / z + 80, view.intrinsics[1, 1] * y / z + 50
    assert ((u >= 0) & (u < 160) & (v >= 0) & (v < 100)).all()
