from dataclasses import asdict

import pytest

from batches.image_config import ImageConfig
from models.public.images import ImageNumbers, read_bevdet_images, read_bevfusion_images
from models.public.used import UnreadableConfig

CAMS = ["CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"]
BEVDET = {
    "cams": CAMS,
    "Ncams": 6,
    "input_size": (256, 704),
    "src_size": (900, 1600),
    "resize": (-0.06, 0.11),
    "rot": (-5.4, 5.4),
    "flip": True,
    "crop_h": (0.0, 0.3),
    "resize_test": 0.04,
}
TRAIN = {
    "type": "ImageAug3D",
    "final_dim": [256, 704],
    "resize_lim": [0.38, 0.55],
    "bot_pct_lim": [0.0, 0.1],
    "rot_lim": [-5.4, 5.4],
    "rand_flip": True,
    "is_train": True,
}
TEST = TRAIN | {"resize_lim": [0.48, 0.48], "rot_lim": [0.0, 0.0], "rand_flip": False, "is_train": False}


def test_bevdets_numbers_are_ours():
    numbers = read_bevdet_images(BEVDET)
    assert numbers == ImageNumbers((256, 704), (-0.06, 0.11), 0.04, (0.0, 0.3), (-5.4, 5.4), True)
    assert ImageConfig(**asdict(numbers)).model_dump() == asdict(numbers)
    assert read_bevdet_images({k: v for k, v in BEVDET.items() if k != "resize_test"}).resize_test == 0


def test_bevfusions_limits_are_the_same_numbers():
    numbers = read_bevfusion_images(TRAIN, TEST, 1600)
    assert numbers.resize == pytest.approx((-0.06, 0.11))
    assert 704 / 1600 + numbers.resize_test == 0.48
    assert (numbers.size, numbers.crop_h, numbers.rot, numbers.flip) == ((256, 704), (0, 0.1), (-5.4, 5.4), True)
    ImageConfig(**asdict(numbers))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"cams": CAMS[1:]}, r"data_config\.cams is .* only nuScenes' six cameras"),
        ({"cams": CAMS[::-1]}, r"data_config\.cams is .* CAM_FRONT_LEFT first"),
        ({"random_crop_height": True}, r"data_config\.random_crop_height is True: only False"),
        ({"vflip": True}, r"data_config\.vflip is True"),
        ({"colour_jitter": 0.1}, r"nothing here knows what data_config\.colour_jitter means"),
    ],
)
def test_what_bevdet_can_and_we_cannot_is_refused(changed, sentence):
    with pytest.raises(UnreadableConfig, match=sentence):
        read_bevdet_images(BEVDET | changed)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"final_dim": [128, 352]}, r"test_pipeline\.final_dim is \[128, 352\], but train_pipeline's is \[256, 704\]"),
        ({"bot_pct_lim": [0, 0]}, r"bot_pct_lim is \[0, 0\], but train_pipeline's is \[0\.0, 0\.1\]"),
        ({"is_train": True}, r"test_pipeline\.is_train is True: only False"),
        ({"pad": 1}, r"nothing here knows what ImageAug3D of test_pipeline\.pad means"),
    ],
)
def test_the_two_steps_of_bevfusion_must_be_one_recipe(changed, sentence):
    with pytest.raises(UnreadableConfig, match=sentence):
        read_bevfusion_images(TRAIN, TEST | changed, 1600)
