"""BEVDet's augmentation (bevdet_aug): of the scene with its boxes, of images, and the inputs of a sequence of frames.

All of it is drawn here anew from the file's seeds: NumPy's old generator draws what the original drew, in its order.
"""

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import torch

from batches.images import (
    ImageConfig,
    ImageDraw,
    apply_draw,
    draw_image,
    draw_test,
    normalise,
    post_homography,
    resized,
)
from batches.lidar import augmented, draw_scene
from dataroot.images import decode
from models.geometry import quaternion_to_rotation, transform
from models.public.images import read_bevdet_images
from oracles.base import EQUAL, Kind, Oracle, Output, Tolerance
from oracles.center_head import boxes_of, rows_of, same_turn

MATRIX = Tolerance(1e-6)
SHIFT = Tolerance(of_max=5e-7)  # px, summed up in float32
NORMALISED = Tolerance(1e-5)


def scenes(oracle: Oracle) -> Iterator[Output]:
    limits = oracle.config["bda"]
    random = np.random.RandomState(oracle.config["numpy_seed"]["bda"])
    rotation, scale = np.deg2rad(limits["rot_lim"]), limits["scale_lim"]
    flips = limits["flip_dx_ratio"], limits["flip_dy_ratio"]
    draws = [draw_scene(random, rotation, scale, flips) for _ in oracle.array("bda/scale")]
    yield Output("bda/rotate_deg", np.rad2deg([draw.rotation for draw in draws]), Tolerance(1e-9))
    yield Output("bda/scale", [draw.scale for draw in draws], Tolerance(1e-12))
    yield Output("bda/flip_dx", [draw.flip_x for draw in draws], EQUAL)
    yield Output("bda/flip_dy", [draw.flip_y for draw in draws], EQUAL)
    yield Output("bda/bda_mat", [draw.matrix() for draw in draws], MATRIX)

    boxes, wanted = boxes_of(oracle.array("bda/boxes_before"), oracle.array("bda/labels"), 0.5), "bda/boxes_after"
    after = [augmented(np.zeros((0, 5), np.float32), boxes, draw.matrix())[1] for draw in draws]
    for key, origin in ((wanted, 0.5), (f"{wanted}_bottom", 0.0)):
        rows = np.stack([rows_of(b, origin) for b in after])
        yield Output(key, same_turn(rows, oracle.array(key)), Tolerance(1e-4))


def image_config(oracle: Oracle) -> ImageConfig:
    return ImageConfig(**asdict(read_bevdet_images(oracle.config["data_config"])))


def source_of(oracle: Oracle) -> tuple[int, int]:
    """(width, height) of the stored images."""
    return tuple(oracle.config["data_config"]["src_size"][::-1])


def _image_draws(oracle: Oracle, seed: str, count: int) -> list[ImageDraw]:
    config, source = image_config(oracle), source_of(oracle)
    random = np.random.RandomState(oracle.config["numpy_seed"][seed])
    resize = [config.size[1] / source[0] + added for added in config.resize]
    return [
        draw_image(source, config.size, random, resize, config.rot, config.flip, config.crop_h) for _ in range(count)
    ]


def _draw_outputs(oracle: Oracle, draws: list[ImageDraw], keys: dict[str, str]) -> Iterator[Output]:
    """keys: ours to the file's."""
    height, width = image_config(oracle).size
    yield Output(keys["resize"], [draw.resize for draw in draws], Tolerance(1e-12))
    if "size" in keys:
        yield Output(keys["size"], [resized(source_of(oracle), draw.resize) for draw in draws], EQUAL)
    windows = [(*draw.crop, draw.crop[0] + width, draw.crop[1] + height) for draw in draws]
    yield Output(keys["crop"], windows, EQUAL)
    yield Output(keys["flip"], [draw.flip for draw in draws], EQUAL)
    yield Output(keys["rotate"], [draw.rotate for draw in draws], Tolerance(1e-12))


def images(oracle: Oracle) -> Iterator[Output]:
    config, source = image_config(oracle), source_of(oracle)
    size = config.size
    image = decode(oracle.array("image/source_jpeg").tobytes())
    yield Output("image/source_pixel_sum", image.sum((0, 1), np.int64), EQUAL)
    sets = {
        "train": _image_draws(oracle, "image", len(oracle.array("image/train_resize"))),
        "test": [draw_test(config, source)],
    }
    for name, draws in sets.items():
        key = f"image/{name}"
        names = {"resize": "resize", "size": "resize_dims_wh", "crop": "crop_xyxy", "flip": "flip"}
        keys = {ours: f"{key}_{theirs}" for ours, theirs in (names | {"rotate": "rotate_deg"}).items()}
        yield from _draw_outputs(oracle, draws, keys)
        yield from _post(oracle, f"{key}_post_rot", f"{key}_post_tran", [post_homography(d, size) for d in draws])
        made = np.stack([apply_draw(image, draws[i], size, source) for i in oracle.array(f"{key}_image_index")])
        yield Output(f"{key}_images", made, EQUAL)
        normalised = _as_bevdet(made)
        yield Output(f"{key}_normalised_sub", normalised[:, :, ::16, ::16], NORMALISED)
        pixels = normalised.double().flatten(2)
        statistics = torch.stack([pixels.mean(2), pixels.std(2)], 1)
        yield Output(f"{key}_normalised_mean_std", statistics, NORMALISED)


def _as_bevdet(made: np.ndarray) -> torch.Tensor:
    """RGB images as the released detectors see them: blue and red exchanged, their statistics not."""
    return normalise(torch.from_numpy(made[..., ::-1].copy()))


def _post(oracle: Oracle, rotations: str, shifts: str, post: list[np.ndarray]) -> Iterator[Output]:
    matrices = np.stack(post)
    flat = np.concatenate([matrices[:, :2, 3], np.zeros((len(matrices), 1))], 1)
    yield Output(rotations, matrices[:, :3, :3], MATRIX)
    yield Output(shifts, flat, SHIFT)


def sequence(oracle: Oracle) -> Iterator[Output]:
    """Key frame and adjacent frames of all cameras: matrices frame by frame, images camera by camera."""
    source, size = source_of(oracle), image_config(oracle).size
    cameras = oracle.array("cams").tolist()
    frames = len(oracle.array("sequence/intrins")) // len(cameras)
    draws = _image_draws(oracle, "sequence", len(cameras))
    keys = {name: f"sequence/{name}" for name in ("resize", "crop", "flip")} | {"rotate": "sequence/rotate_deg"}
    yield from _draw_outputs(oracle, draws, keys)
    post = [post_homography(draw, size) for draw in draws] * frames  # a camera's earlier frames are cut as its key
    yield from _post(oracle, "sequence/post_rots", "sequence/post_trans", post)

    def calibration(name: str) -> list[np.ndarray]:
        return [oracle.array(f"raw_calib/{adj}{camera}/{name}") for adj in ("", "adj/") for camera in cameras]

    for name in ("sensor2ego", "ego2global"):
        poses = zip(calibration(f"{name}_rotation"), calibration(f"{name}_translation"))
        matrices = np.stack([transform(quaternion_to_rotation(turn), shift) for turn, shift in poses])
        yield Output(f"sequence/{name}", matrices, Tolerance(absolute=1e-6, relative=1e-6))
    # One set of intrinsics for all frames of a camera.
    yield Output("sequence/intrins", calibration("cam_intrinsic")[: len(cameras)] * frames, Tolerance(relative=1e-6))

    # Of the images the file holds one camera's key image only: that whose mean it is.
    image = decode(oracle.array("image/source_jpeg").tobytes())
    views = np.stack([apply_draw(image, draw, size, source) for draw in draws])
    means = _as_bevdet(views).double().mean((2, 3)).numpy()
    wanted = oracle.array("sequence/img_channel_mean")[::frames]
    own = np.abs(means - wanted).max(1).argmin()
    yield Output(f"sequence/img_channel_mean ({cameras[own]})", means[own], NORMALISED, wanted[own])


KINDS = (
    Kind(
        "bevdet_aug",
        ("bda/bda_mat", "image/train_resize"),
        (
            *("bda/boxes_before", "bda/labels", "cams", "raw_calib/*"),
            *("image/source_jpeg", "image/train_image_index", "image/test_image_index"),
        ),
        (scenes, images, sequence),
    ),
)
