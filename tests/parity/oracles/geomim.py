"""GeoMIM's pretraining: the masked student, the target, and everything together with its gradients."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from models.cameras import Cameras
from models.depth_bins import DepthBins
from models.geomim.decoder import DecoderMaps
from models.geomim.model import GeoMIM, Losses, Reconstruction
from models.geomim.target import EPS, normalise_patches, reconstruction_loss
from models.geomim.view_transform import ViewTransformSpec
from models.layouts import geomim_from_original
from models.lift_splat import BevGrid
from models.masking import halves
from models.public.geomim import ViewSpec, read_student, read_view_transform
from models.public.used import Used
from oracles.base import EQUAL, Kind, Oracle, Output, Tolerance, leading, norms, public, recorded
from oracles.depth import at_stride
from oracles.view_transform import (
    BEV,
    CAMERA_STATISTICS,
    GRADIENTS,
    LOSS,
    MAPS,
    cameras_of,
    depth_map_of,
    gradients,
    statistics,
)

CELL = 32  # px a side of what is masked as one
TARGET = Tolerance(1e-5)
# In training, batch norms of a map that is mostly empty divide by small deviations, which makes much of a rounding.
BEV_IN_TRAINING = replace(BEV, bf16=0.08)

# The student's file has no view transform; the model wants one.
_SOME_GRID, _SOME_BINS = BevGrid((-54.0, 54.0), (-54.0, 54.0), (-10.0, 10.0), 0.3), DepthBins(1.0, 60.0, 0.5)


def groups_of(noise: Tensor, images: Tensor) -> Tensor:
    """The two halves (1, h, w) that the stored noise orders."""
    return halves(noise.view(1, -1).argsort(1), (images.shape[-2] // CELL, images.shape[-1] // CELL))


def masks(oracle: Oracle, noise: str, images: str, prefix: str) -> Iterator[Output]:
    yield Output(f"{noise}_perm", oracle[noise].argsort(-1), EQUAL)
    groups = groups_of(oracle[noise], oracle[images])
    for half in (0, 1):
        yield Output(f"{prefix}{half}", groups[0] != half, EQUAL)


# --- geomim_student ---------------------------------------------------------------------------------------------------


def student_of(oracle: Oracle) -> GeoMIM:
    student = read_student(Used(public(oracle.config), "backbone"))
    transform = ViewTransformSpec(_SOME_BINS, _SOME_GRID, context=8, truncate=True)
    view = ViewSpec(student.decoder.width, transform, (256, 704), 0.01)
    model = student.build(view, 8)
    missing, unexpected = model.load_state_dict(geomim_from_original(oracle.state()), strict=False)
    faults = unexpected + [name for name in missing if not name.startswith(("view_transform.", "head."))]
    if faults:
        raise ValueError(f"weights that do not fit: {', '.join(faults)}")
    return model.eval()


def decode(oracle: Oracle, model: GeoMIM, group: str, noise: str) -> DecoderMaps:
    images, mounting = oracle[f"{group}/img"], oracle[f"{group}/sensor2ego"]
    intrinsics = oracle[f"{group}/cam_intrinsic"][..., :3, :3]
    frame = (matrices[:, None] for matrices in (intrinsics, oracle[f"{group}/img_aug_matrix"], mounting))
    vector = Cameras(*frame, mounting, torch.eye(4).expand(len(mounting), 4, 4)).vector()
    with torch.no_grad():
        return model.decode(images.unflatten(0, mounting.shape[:2]), vector, groups_of(oracle[noise], images))


def student(oracle: Oracle) -> Iterator[Output]:
    model = student_of(oracle)
    backbone, decoder = model.backbone, model.decoder
    tokens = {
        "patch_embed": backbone.patch_embed,
        "stage0": backbone.stages[0].downsample,
        "stage1": backbone.stages[1].downsample,
        "p4": model.fusion,
        "decoder_block3": decoder.blocks[3],
        "cross0": decoder.cross_blocks[0],
        "cross1": decoder.cross_blocks[1],
        "cross2": decoder.geometry_cross_blocks[0],
        "cam_pose": decoder.camera_gate,
        "c4": backbone.norm2,
        "c5": backbone.norm3,
    }
    with recorded(tokens) as inner:
        maps = decode(oracle, model, "inputs", "noise")
    yield from masks(oracle, "noise", "inputs/img", "masks/mask")
    for name, value in inner.items():  # (M, H, W, C)
        yield Output(f"inter/{name}", leading(value.flatten(1, 2), oracle, f"inter/{name}"), MAPS)
    yield Output("out/semantic", maps.semantic, MAPS)
    yield Output("out/geometry", maps.geometry, MAPS)


def student_masked_otherwise(oracle: Oracle) -> Iterator[Output]:
    if "draw2/noise" not in oracle:
        return
    maps = decode(oracle, student_of(oracle), "inputs", "draw2/noise")
    yield from masks(oracle, "draw2/noise", "inputs/img", "draw2/mask")
    every = len(oracle.array("inputs/img"))
    yield Output("draw2/semantic", maps.semantic[::every], MAPS)
    yield Output("draw2/geometry", maps.geometry[::every], MAPS)


def student_of_odd_cells(oracle: Oracle) -> Iterator[Output]:
    if "odd/img" not in oracle:
        return
    maps = decode(oracle, student_of(oracle), "odd", "odd/noise")
    yield from masks(oracle, "odd/noise", "odd/img", "odd/mask")
    yield Output("odd/semantic", maps.semantic[::3], MAPS)
    yield Output("odd/geometry", maps.geometry[::3], MAPS)


def student_in_training(oracle: Oracle) -> Iterator[Output]:
    if "train/geometry" not in oracle:
        return
    model = student_of(oracle).train()
    maps = decode(oracle, model, "inputs", "noise")
    yield Output("train/geometry", maps.geometry, MAPS)
    for name, value in model.decoder.camera_gate.bn.named_buffers():
        yield Output(f"train/bn_{name}", value, EQUAL if name == "num_batches_tracked" else CAMERA_STATISTICS)


# --- geomim_target ----------------------------------------------------------------------------------------------------


def target(oracle: Oracle) -> Iterator[Output]:
    bev, patch = oracle["inputs/lidar_feature"], int(oracle.array("patch"))
    got = normalise_patches(bev, patch)
    yield Output("out/target", got, TARGET)
    losses = [reconstruction_loss(oracle[f"inputs/camera{half}"], got) for half in oracle.below("inputs/camera")]
    yield Output("out/rec_loss", sum(losses) / len(losses), TARGET)

    # The statistics of a patch are nowhere kept; what its extremes became tells them.
    before, after = (_patches(t.double(), patch) for t in (bev, got))
    low, high = after.argmin(2, keepdim=True), after.argmax(2, keepdim=True)
    span = after.gather(2, high) - after.gather(2, low)
    deviation = torch.where(span > 0, (before.gather(2, high) - before.gather(2, low)) / span, EPS**0.5)
    mean = before.gather(2, high) - deviation * after.gather(2, high)
    yield Output("patch_mean", mean, TARGET)
    yield Output("patch_var", deviation**2 - EPS, Tolerance(absolute=1e-7, relative=1e-5))
    rows = leading(after * deviation + mean, oracle, "patchified_first_rows")
    yield Output("patchified_first_rows", rows, Tolerance(of_max=1e-5))


def _patches(bev: Tensor, patch: int) -> Tensor:
    """(B, C, X, Y) -> (B, patches, patch * patch * C), inside a patch by x, y, channel."""
    blocks = bev.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # (B, C, X/p, p, Y/p, p)
    return blocks.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


# --- geomim_full ------------------------------------------------------------------------------------------------------


def whole_masks(oracle: Oracle) -> Iterator[Output]:
    yield from masks(oracle, "noise", "inputs/img", "masks/mask")


def whole(mode: str, oracle: Oracle) -> Iterator[Output]:
    """Losses and gradients in `mode` ("eval" or "train")."""
    if f"{mode}/loss" not in oracle:
        return
    config, images, bev = oracle.config, oracle["inputs/img"], oracle["inputs/lidar_feature"]
    view = read_view_transform(Used(config["vtransform"], "vtransform"))
    model = read_student(Used(config["swin"], "backbone")).build(view, config["bev_feat_dim"])
    model.load_state_dict(geomim_from_original(oracle.state()))
    model.train(mode == "train")
    cameras = model.geometry(cameras_of(oracle), tuple(images.shape[-2:]))
    made: Reconstruction = model(images, cameras, groups_of(oracle["noise"], images))
    maps = torch.from_numpy(depth_map_of(oracle, tuple(images.shape[-2:])))
    depth = at_stride(maps.flatten(0, 1), model.stride).unflatten(0, maps.shape[:2])
    losses: Losses = model.losses(made, bev, depth)
    losses.total.backward()
    yield Output(f"{mode}/rec_loss", losses.reconstruction, LOSS)
    yield Output(f"{mode}/depth_loss", model.depth_weight * losses.depth, LOSS)
    yield Output(f"{mode}/loss", losses.total, LOSS)
    for half, predicted in enumerate(made.bev):
        key, tolerance = f"{mode}/pred{half}", BEV_IN_TRAINING if mode == "train" else BEV
        yield Output(key, leading(predicted, oracle, key), tolerance)
    yield from norms(oracle, f"{mode}/gradnorm/", gradients(oracle, f"{mode}/gradnorm/", model), GRADIENTS, 0.06)
    every = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None])
    yield Output(f"{mode}/total_grad_norm", every.norm(), Tolerance(relative=GRADIENTS, bf16=0.03))
    for name, gradient in gradients(oracle, f"{mode}/grad/", model).items():
        key = f"{mode}/grad/{name}"
        yield Output(key, gradient, Tolerance(of_max=GRADIENTS, bf16=0.5 if mode == "train" else 0.04))
    yield from statistics(oracle, f"{mode}/bn_after/", model)


def whole_in_evaluation(oracle: Oracle) -> Iterator[Output]:
    yield from whole("eval", oracle)


def whole_in_training(oracle: Oracle) -> Iterator[Output]:
    yield from whole("train", oracle)


KINDS = (
    Kind(
        "geomim_student",
        ("inputs/img", "out/semantic", "out/geometry"),
        ("sd/*", "inputs/*", "*noise", "odd/img*", "odd/sensor2ego", "odd/cam_intrinsic"),
        (student, student_masked_otherwise, student_of_odd_cells, student_in_training),
    ),
    Kind("geomim_target", ("inputs/lidar_feature", "patch", "out/target"), ("inputs/*", "patch"), (target,)),
    Kind(
        "geomim_full",
        ("inputs/img", "inputs/lidar_feature", "masks/mask0"),
        ("sd/*", "inputs/*", "noise"),
        (whole_masks, whole_in_evaluation, whole_in_training),
    ),
)
