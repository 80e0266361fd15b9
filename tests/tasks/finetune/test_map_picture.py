import numpy as np
from PIL import Image

from models.names import FREE
from tasks.finetune.map_picture import BACKGROUND, CLASS_COLOURS, LAYER_COLOURS, UNSEEN, mask_image, voxel_image
from tasks.finetune.picture import TILE_WIDTH, two_rows


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
