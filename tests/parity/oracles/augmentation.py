"""Camera images and their augmentation (imageaug)."""

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from batches.image_config import ImageConfig
from batches.images import ImageDraw, apply_draw, draw_middle, post_homography, resized
from dataroot.images import decode
from models.public.images import read_bevfusion_images
from oracles.base import EQUAL, Kind, Oracle, Output, Tolerance

LINEAR = Tolerance(1e-6)


def images(oracle: Oracle) -> Iterator[Output]:
    size = tuple(oracle.config["final_dim"])
    source: tuple[int, int] = tuple(oracle.array("source_size_wh").tolist())
    image = decode(oracle.array("source_jpeg").tobytes())
    yield Output("source_pixel_sum", image.sum((0, 1), np.int64), EQUAL)

    names = ("resize", "crop_xyxy", "flip", "rotate_deg")
    rows = zip(*(oracle.array(name).tolist() for name in names), strict=True)
    draws = [ImageDraw(resize, tuple(crop[:2]), flip, rotate) for resize, crop, flip, rotate in rows]
    yield Output("resize_dims_wh", [resized(source, draw.resize) for draw in draws], EQUAL)
    yield from _matrix(oracle, "matrix", np.stack([post_homography(draw, size) for draw in draws]))
    for number, draw in enumerate(oracle.array("image_index") if "image_index" in oracle else ()):
        yield Output(f"image{number}", apply_draw(image, draws[draw], size, source), EQUAL)

    if "test_matrix" in oracle:
        resize = round(float(oracle.array("test_matrix")[0, 0]), 6)  # a decimal number before it became float32
        test = draw_middle(source, size, resize, image_config(oracle, resize).crop_h)
        yield from _matrix(oracle, "test_matrix", post_homography(test, size))
        yield Output("test_image", apply_draw(image, test, size, source), EQUAL)


def image_config(oracle: Oracle, test_resize: float) -> ImageConfig:
    """The file's settings are those of the training's step; of the test's it holds the result alone."""
    names = ("final_dim", "resize_lim", "bot_pct_lim", "rot_lim", "rand_flip")
    train = {"type": "ImageAug3D", "is_train": True} | {name: oracle.config[name] for name in names}
    test = train | {"is_train": False, "resize_lim": [test_resize, test_resize]}
    width, _ = oracle.array("source_size_wh").tolist()
    return ImageConfig(**asdict(read_bevfusion_images(train, test, width)))


def _matrix(oracle: Oracle, key: str, got: np.ndarray) -> Iterator[Output]:
    wanted = oracle.array(key)
    yield Output(f"{key} (linear part)", got[..., :3], LINEAR, wanted[..., :3])
    yield Output(f"{key} (shift)", got[..., 3], Tolerance(of_max=5e-7), wanted[..., 3])  # px, summed up in float32


KINDS = (
    Kind(
        "imageaug",
        ("source_jpeg", "matrix", "crop_xyxy"),
        ("source_jpeg", "source_size_wh", "image_index", "resize", "crop_xyxy", "flip", "rotate_deg"),
        (images,),
    ),
)
