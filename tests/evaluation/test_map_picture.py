import numpy as np

from evaluation.map_picture import (
    BACKGROUND,
    CLASS_COLOURS,
    LAYER_COLOURS,
    UNSEEN,
    mask_image,
    voxel_image,
)
from models.names import FREE


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
