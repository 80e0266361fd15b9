"""Image augmentation as public configs say it, in BEVDet's numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.names import CAMERAS
from models.public.used import UnreadableConfig, Used

KEY_CAMERA = "CAM_FRONT_LEFT"  # the first of the cameras: the released detectors' ego is that of its time

# What `data_config` holds beside the augmentation.
_IGNORED = {
    "Ncams": "how many of the cameras a training step draws",
    "src_size": "of the stored images, which are looked at themselves",
}


@dataclass(frozen=True)
class ImageNumbers:
    """Size (height, width) of the network's input, and how it is cut out of the stored image.

    resize: range of what is added to width / source width, the factor that makes the width fit; resize_test: what is
    added where nothing is random. crop_h: range of the share of the resized height that goes at the bottom, of which
    the test takes the mean. rot: range of the rotation (degrees). flip: half of the images are mirrored.
    """

    size: tuple[int, int]
    resize: tuple[float, float]
    resize_test: float
    crop_h: tuple[float, float]
    rot: tuple[float, float]
    flip: bool


def read_bevdet_images(config: Mapping[str, Any], place: str = "data_config") -> ImageNumbers:
    """BEVDet's `data_config`. Raises UnreadableConfig."""
    with Used(config, place) as data:
        data.ignore(_IGNORED)
        cameras = data.texts("cams")
        if sorted(cameras) != sorted(CAMERAS) or cameras[0] != KEY_CAMERA:
            raise UnreadableConfig(
                f"{data.at('cams')} is {list(cameras)}: only nuScenes' six cameras are implemented, "
                f"{KEY_CAMERA} first, at whose time the ego is"
            )
        for never in ("random_crop_height", "vflip"):
            data.fixed(never, False)
        return ImageNumbers(
            data.integers("input_size", 2),
            data.numbers("resize", 2),
            data.number("resize_test", 0.0),
            data.numbers("crop_h", 2),
            data.numbers("rot", 2),
            data.flag("flip"),
        )


def read_bevfusion_images(
    train: Mapping[str, Any], test: Mapping[str, Any], source_width: int, place: str = "ImageAug3D"
) -> ImageNumbers:
    """The two `ImageAug3D` steps of BEVFusion's and GeoMIM's pipelines, whose resize limits are factors themselves.

    source_width: of the stored images (px). Raises UnreadableConfig.
    """
    with Used(train, f"{place} of train_pipeline") as step:
        step.fixed("type", "ImageAug3D")
        step.fixed("is_train", True)
        size = step.integers("final_dim", 2)
        fit = size[1] / source_width
        low, high = step.numbers("resize_lim", 2)
        resize = low - fit, high - fit
        crop_h, rot, flip = step.numbers("bot_pct_lim", 2), step.numbers("rot_lim", 2), step.flag("rand_flip")
    with Used(test, f"{place} of test_pipeline") as step:
        step.fixed("type", "ImageAug3D")
        step.fixed("is_train", False)
        step.agrees("final_dim", size, "train_pipeline's")
        step.agrees("bot_pct_lim", crop_h, "train_pipeline's")
        step.ignore(dict.fromkeys(("rot_lim", "rand_flip"), "the test neither turns nor mirrors"))
        low, high = step.numbers("resize_lim", 2)
        return ImageNumbers(size, resize, (low + high) / 2 - fit, crop_h, rot, flip)
