"""BEVDet4D: a key frame and an earlier one through depth, splat, BEV encoder and head (bevdet4d)."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from models.bevdet.alignment import aligned, sampling_grid
from models.bevdet.detector import BevDet
from models.rays import feature_pixels, pixel_rays
from oracles.base import Kind, Oracle, Output, Tolerance, leading, recorded
from oracles.detector import CELLS, POSES, cameras_of, detector_of, head_outputs, images_of, losses_and_gradients

FEATURES, SPLATTED = Tolerance(2e-5, bf16=0.02), Tolerance(1e-4, share=0.995, bf16=0.02)
DEPTH = Tolerance(2e-5, bf16=0.05)  # a softmax makes a logit's absolute error a relative one
BEV = Tolerance(2e-4, share=0.995, bf16=0.06)  # behind the residual encoder, whose sums cancel
PLACES, MOVED = Tolerance(1e-5), Tolerance(1e-3, bf16=0.02)
NORM = Tolerance(relative=2e-5, bf16=0.01)


def inputs(oracle: Oracle) -> Iterator[Output]:
    images, cameras = images_of(oracle), cameras_of(oracle)
    rows = images[:, 0, :, :, :2, :40]
    yield Output("prep/img_first_rows", leading(rows, oracle, "prep/img_first_rows"), Tolerance(1e-5))
    for frame in range(images.shape[1]):
        yield Output(f"prep/sensor2keyego{frame}", cameras.camera_to_frame[:, frame], POSES)


@torch.no_grad()
def frames(oracle: Oracle) -> Iterator[Output]:
    """Each frame on its own."""
    net, images, cameras = detector_of(oracle), images_of(oracle), cameras_of(oracle)
    for frame in range(images.shape[1]):
        key = f"inter/frame{frame}"
        inside = {"neck": net.image_neck, "features": net.depth_net}
        with recorded(inside) as inner:
            bev, depth, _ = net.lift(images[:, frame], net.frame_geometry(cameras, frame))
        values = {
            "neck": (inner["neck"].unflatten(0, depth.shape[:2]), FEATURES),
            "depth": (depth.flatten(0, 1), DEPTH),
            "context": (inner["features"][:, net.spec.depth_bins.count :], FEATURES),
            "cell_flat": (net.cells(cameras, frame), CELLS),
            "bev_pooled": (bev, SPLATTED),
            "bev_pre": (net.pre_encoder(bev)[0], SPLATTED),
        }
        for name, (value, tolerance) in values.items():
            yield Output(f"{key}_{name}", leading(value, oracle, f"{key}_{name}"), tolerance)
        rays = pixel_rays(
            cameras.lens(frame), cameras.camera_to_bev(frame), feature_pixels(net.spec.image_size, net.stride)
        )
        points = rays.at(net.spec.depth_bins.edges())[:, :, ::13, ::3, ::5]
        yield Output(f"{key}_coor_sub", points, Tolerance(of_max=1e-5))


@torch.no_grad()
def whole(oracle: Oracle) -> Iterator[Output]:
    net, images, cameras = detector_of(oracle), images_of(oracle), cameras_of(oracle)
    with recorded({f"enc{number}": layer for number, layer in enumerate(net.bev_encoder.layers)}) as inner:
        bev, _ = net(images, net.geometry(cameras))
    for number, every in enumerate((4, 2, 1)):
        yield Output(f"out/enc{number}", inner[f"enc{number}"][..., ::every, ::every], BEV)
    yield Output("out/bev", bev, BEV)
    if "noprev/bev" in oracle:
        alone, _ = net(images, net.geometry(cameras), with_previous=False)
        yield Output("noprev/bev", leading(alone, oracle, "noprev/bev"), BEV)
        yield Output("noprev/bev_norm", alone.double().norm(), NORM)


def head(oracle: Oracle) -> Iterator[Output]:
    return head_outputs(oracle, "head1", "decode/task1_")


@torch.no_grad()
def moved_after_the_splat(oracle: Oracle) -> Iterator[Output]:
    if "align/grid" not in oracle:
        return
    net, images, cameras = detector_of(oracle, align_after_splat=True), images_of(oracle), cameras_of(oracle)
    earlier = net.pre_encoder(net.lift(images[:, 1], net.frame_geometry(cameras, 1))[0])[0]
    yield Output("align/shift_in", leading(earlier, oracle, "align/shift_in"), SPLATTED)
    places = sampling_grid(cameras, 1, net.spec.grid, at_corners=True)
    yield Output("align/grid", places, PLACES)
    yield Output("align/shift_out", leading(aligned(earlier, places), oracle, "align/shift_out"), MOVED)
    yield from _bev_and_heatmap(oracle, "align", net, images, cameras)
    if "align/bda2" in oracle:
        scene = cameras.scene.clone()
        scene[:, :3, :3] = oracle["align/bda2"]
        places = sampling_grid(replace(cameras, scene=scene), 1, net.spec.grid, at_corners=True)
        yield Output("align/grid_bda2", places, PLACES)
        turned = aligned(earlier, places)
        yield Output("align/shift_out_bda2", leading(turned, oracle, "align/shift_out_bda2"), MOVED)


def _bev_and_heatmap(oracle: Oracle, group: str, net: BevDet, images: Tensor, cameras) -> Iterator[Output]:
    bev, _ = net(images, net.geometry(cameras))
    yield Output(f"{group}/bev", leading(bev, oracle, f"{group}/bev"), BEV)
    yield Output(f"{group}/bev_norm", bev.double().norm(), NORM)
    heatmap = net.head(bev)[0]["heatmap"]
    yield Output(f"{group}/heatmap", leading(heatmap, oracle, f"{group}/heatmap"), BEV)


@torch.no_grad()
def augmented(oracle: Oracle) -> Iterator[Output]:
    """A second sample: the first one's images with other matrices."""
    if "aug/bda" not in oracle:
        return
    net, cameras = detector_of(oracle), cameras_of(oracle, "aug")
    images = images_of(oracle)[:1].expand(len(cameras.scene), -1, -1, -1, -1, -1)
    for frame in range(images.shape[1]):
        yield Output(f"aug/frame{frame}_cell_flat", net.cells(cameras, frame)[1], CELLS)
    bev, _ = net(images, net.geometry(cameras))
    yield Output("aug/bev", leading(bev, oracle, "aug/bev"), BEV)
    yield Output("aug/bev_norm", bev.double().flatten(1).norm(dim=1), NORM)
    heatmap = net.head(bev)[0]["heatmap"][1]
    yield Output("aug/heatmap", leading(heatmap, oracle, "aug/heatmap"), BEV)

    net = detector_of(oracle, align_after_splat=True)
    places = sampling_grid(cameras, 1, net.spec.grid, at_corners=True)
    yield Output("aug/grid", places[1], PLACES)
    earlier = net.pre_encoder(net.lift(images[:, 1], net.frame_geometry(cameras, 1))[0])[0]
    yield Output("aug/shift_out", leading(aligned(earlier, places)[1], oracle, "aug/shift_out"), MOVED)


KINDS = (
    Kind(
        "bevdet4d",
        ("inter/frame0_bev_pooled", "head1/task0_reg"),
        (
            "sd/*",
            "inputs/*",
            "gt/*",
            "cams",
            "align/bda2",
            "*_margin",
            *(f"aug/{name}" for name in ("sensor2ego", "ego2global", "intrins", "post_rots", "post_trans", "bda")),
        ),
        (inputs, frames, whole, head, losses_and_gradients, moved_after_the_splat, augmented),
    ),
)
