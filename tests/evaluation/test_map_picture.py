import io
from functools import partial
from types import SimpleNamespace

import numpy as np
from PIL import Image

from evaluation.map_picture import (
    BACKGROUND,
    CLASS_COLOURS,
    LAYER_COLOURS,
    UNSEEN,
    mask_image,
    picture,
    voxel_image,
)
from evaluation.misses import Misses
from evaluation.picture import TILE_WIDTH, draw_detections, two_rows
from models.boxes import Boxes
from models.names import CAMERAS, FREE
from storage.index import Index


def test_images_of_any_height_are_shown_whole():
    """1920x886 beside 1920x1280: nothing of a high image is covered, and rows do not overlap."""
    heights = (221, 320, 221, 320, 221, 270)
    tiles = [Image.new("RGB", (TILE_WIDTH, height), (i + 1, 0, 0)) for i, height in enumerate(heights)]
    shown = np.asarray(two_rows(tiles))
    assert shown.shape == (640, 3 * TILE_WIDTH, 3)
    for i, height in enumerate(heights):
        assert (shown[..., 0] == i + 1).sum() == TILE_WIDTH * height
        row, column = divmod(i, 3)
        top = 320 * row + (320 - height) // 2
        assert (shown[top : top + height, TILE_WIDTH * column : TILE_WIDTH * (column + 1), 0] == i + 1).all()


def test_masks_show_the_front_up_and_the_left_left():
    masks = np.zeros((2, 4, 6), bool)  # (L, Y, X)
    masks[:, 3, 5] = True  # farthest left, farthest ahead
    masks[0, 0, 5] = True  # farthest right, farthest ahead
    image = mask_image(masks)
    assert image.shape == (6, 4, 3)
    assert tuple(image[0, 0]) == LAYER_COLOURS["vehicle"]
    assert tuple(image[0, 3]) == LAYER_COLOURS["drivable_area"]
    assert tuple(image[5, 0]) == BACKGROUND


def test_voxels_show_what_is_highest_and_seen():
    labels, seen = np.full((3, 3, 4), FREE, np.uint8), np.zeros((3, 3, 4), bool)
    labels[2, 2], seen[2, 2] = [11, 4, 15, FREE], [True, True, False, True]
    labels[0, 0, 1] = 4  # not seen
    seen[0, 2] = True  # free
    image = voxel_image(labels, seen)
    assert tuple(image[0, 0]) == tuple(CLASS_COLOURS[4])
    assert tuple(image[2, 2]) == UNSEEN
    assert tuple(image[2, 0]) == BACKGROUND


def test_cameras_of_different_heights_are_shown_whole(tmp_path):
    """Waymo's side cameras are 886 px high beside 1280: a picture has room for the highest, wherever it stands."""
    index = SimpleNamespace(
        camera_path=np.array([[f"{name}.jpg" for name in CAMERAS]], object),
        camera_ego_to_global=np.tile(np.eye(4), (1, 6, 1, 1)),
        camera_to_ego=np.tile(np.eye(4), (1, 6, 1, 1)),
        lidar_ego_to_global=np.eye(4)[None],
        lidar_to_ego=np.eye(4)[None],
    )
    for name in ("lidar_to_global", "camera_to_global"):
        setattr(index, name, partial(getattr(Index, name), index))
    for name in CAMERAS:
        image = Image.new("RGB", (192, 128 if name in ("CAM_FRONT", "CAM_BACK") else 88), (90, 90, 90))
        image.paste((0, 200, 0), (0, image.height - 16, 192, image.height))  # the last rows are green
        image.save(tmp_path / f"{name}.jpg", quality=95)
    none = Boxes.empty()
    draw_detections(tmp_path / "detections.png", index, tmp_path, 0, Misses(none, none, none, none))
    made = picture(index, tmp_path, 0, {"truth": np.zeros((4, 4, 3), np.uint8)}, 20.0)
    scale = TILE_WIDTH / 192
    for shown in (Image.open(tmp_path / "detections.png"), Image.open(io.BytesIO(made))):
        pixels = np.asarray(shown)[:, : 3 * TILE_WIDTH]
        green = (pixels[..., 1] > 150) & (pixels[..., 0] < 60)
        for row in range(2):
            for column in range(3):
                tile = green[round(row * 128 * scale) :, column * TILE_WIDTH :][: round(128 * scale), :TILE_WIDTH]
                assert abs(tile[:, TILE_WIDTH // 2].sum() - 16 * scale) < 8
