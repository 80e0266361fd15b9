"""GeoMIM's view transform (geomim_lss): depth targets, geometry, lift-splat, its gradients and statistics."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from models.cameras import Cameras
from models.depth_bins import depth_loss
from models.geomim.view_transform import ViewTransform
from models.layouts import geomim_from_original, without_prefix
from models.lift_splat import SplatPlan
from models.public.geomim import ViewSpec, read_view_transform
from models.public.used import Used
from models.rays import feature_pixels, frustum, pixel_rays
from oracles.base import EQUAL, Kind, Oracle, Output, Tolerance, leading, norms, public
from oracles.depth import at_stride, last_hits

MAPS = Tolerance(1e-5, bf16=0.02)
# Points on the borders of cells fall as the rounding has it. In bf16 the convolutions behind the splat average.
POOLED, BEV = Tolerance(1e-4, share=0.995, bf16=0.02), Tolerance(1e-4, share=0.995, bf16=0.006)
LOSS = Tolerance(2e-6, bf16=0.003)  # a mean over many: roundings cancel
STATISTICS = Tolerance(absolute=1e-5, relative=1e-4, bf16=0.001)  # likewise
CAMERA_STATISTICS = Tolerance(absolute=1e-5, relative=1e-4)  # of the numbers that describe cameras, which are data
GRADIENTS = 1e-3  # relative
INPUT_GRADIENTS = Tolerance(1e-5, bf16=0.15)  # through the depth's softmax, of differences between sums


def ours(name: str) -> str:
    """The name in this project of a tensor of the original."""
    return next(iter(geomim_from_original({name: torch.empty(0)})))


def statistics(oracle: Oracle, prefix: str, model: nn.Module, inside: str = "") -> Iterator[Output]:
    """Stored buffers `prefix + name` against the model's; `inside`: where the model stands in the whole student."""
    buffers = dict(model.named_buffers())
    for name in filter(lambda name: name.startswith("encoders."), oracle.below(prefix)):
        tolerance = EQUAL if name.endswith("num_batches_tracked") else STATISTICS
        tolerance = CAMERA_STATISTICS if ".cam_pose.bn.running" in name else tolerance
        yield Output(prefix + name, buffers[ours(name).removeprefix(inside)], tolerance)


def cameras_of(oracle: Oracle) -> Cameras:
    return Cameras(
        oracle["inputs/camera_intrinsics"][:, None, :, :3, :3],
        oracle["inputs/img_aug_matrix"][:, None],
        oracle["inputs/camera2lidar"][:, None],
        oracle["inputs/camera2ego"],
        oracle["inputs/lidar_aug_matrix"],
    )


def depth_map_of(oracle: Oracle, size: tuple[int, int]) -> np.ndarray:
    """(B, N, H, W) of the stored clouds, made the original's way."""
    maps = []
    for b, augmentation in enumerate(oracle.array("inputs/lidar_aug_matrix").astype(np.float64)):
        points, back = oracle.array(f"inputs/points{b}"), np.linalg.inv(augmentation)
        points = np.concatenate([points[:, :3] @ back[:3, :3].T + back[:3, 3], points[:, 3:]], 1)
        to_camera, intrinsics, post = (
            oracle.array(f"inputs/{name}")[b].astype(np.float64)
            for name in ("lidar2camera", "camera_intrinsics", "img_aug_matrix")
        )
        maps.append(last_hits(points, to_camera, intrinsics[:, :3, :3], post, size))
    return np.stack(maps)


def view_of(oracle: Oracle) -> ViewSpec:
    return read_view_transform(Used(public(oracle.config), "vtransform"))


def view_transform_of(oracle: Oracle) -> ViewTransform:
    transform = view_of(oracle).build()
    transform.load_state_dict(without_prefix(geomim_from_original(oracle.state()), "view_transform."))
    return transform.eval()


def stored_depth_map(oracle: Oracle) -> Tensor:
    """(B * N, H, W)."""
    batch, views = oracle.array("inputs/camera2lidar").shape[:2]
    depth = torch.zeros(batch * views, *oracle.config["image_size"])
    depth[oracle["depth/gt_index"].long().unbind(1)] = oracle["depth/gt_value"]
    return depth


def stored_plan(oracle: Oracle, transform: ViewTransform) -> SplatPlan:
    nx, ny = transform.grid.shape
    return SplatPlan.of(oracle["geom/cell_flat"].long(), nx * ny)


def depth_targets(oracle: Oracle) -> Iterator[Output]:
    size = tuple(oracle.config["image_size"])
    got, wanted = depth_map_of(oracle, size).reshape(-1, *size), stored_depth_map(oracle).numpy()
    labelled = (got > 0) | (wanted > 0)
    same_pixels = Tolerance(share=0.999)
    yield Output("depth/gt_index (labelled pixels)", got[labelled] > 0, same_pixels, wanted[labelled] > 0)
    if "depth/hits_unique_behind" in oracle:
        pixels = oracle.array("depth/hits_unique_behind").reshape(-1, 3)[:, 1]
        labelled_pixels = (got > 0).sum((1, 2))[: len(pixels)]
        yield Output("depth/hits_unique_behind (unique)", labelled_pixels, Tolerance(relative=1e-3), pixels)
    yield Output("depth/gt_value", got[labelled], Tolerance(1e-3, share=0.999), wanted[labelled])
    labels = view_transform_of(oracle).bins.labels(at_stride(stored_depth_map(oracle), oracle.config["stride"]))
    yield Output("depth/bins", labels, EQUAL)


def geometry(oracle: Oracle) -> Iterator[Output]:
    config, transform, cameras = oracle.config, view_transform_of(oracle), cameras_of(oracle)
    size, stride = tuple(config["image_size"]), config["stride"]
    edges = transform.bins.edges()
    if "frustum_shape" in oracle:
        pixels = frustum(edges, size, stride)
        yield Output("frustum_shape", pixels.shape, EQUAL)
        corners = torch.stack([pixels[0, 0, 0], pixels[-1, -1, -1], pixels[1, 2, 3]])
        yield Output("frustum_corner", corners, Tolerance(of_max=1e-6))
    cells = transform.cells(cameras, size, stride)
    stored = oracle.array("geom/cell_flat")
    borders = int(oracle.array("geom/near_border")) / stored.size if "geom/near_border" in oracle else 1e-3
    flips = Tolerance(share=1 - borders)
    yield Output("geom/cell_flat", cells, flips)

    def some(values: Tensor) -> Tensor:
        return values[:, :, ::13, ::5, ::7]

    if "geom/xyz_sub" in oracle:
        rays = pixel_rays(cameras.lens(), cameras.camera_to_bev(), feature_pixels(size, stride))
        yield Output("geom/xyz_sub", some(rays.at(edges)), Tolerance(of_max=1e-5))
    if "geom/cell_sub" in oracle:
        x, y, z = np.moveaxis(oracle.array("geom/cell_sub").astype(np.int64), -1, 0)
        nx, ny = transform.grid.shape
        inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny) & (z == 0)
        yield Output("geom/cell_sub (flat)", some(cells), flips, np.where(inside, x * ny + y, -1))


def splat(oracle: Oracle) -> Iterator[Output]:
    """Forward with our cells and with the stored ones, and backward with the latter."""
    transform = view_transform_of(oracle)
    size, stride = tuple(oracle.config["image_size"]), oracle.config["stride"]
    semantic, geometry = (oracle[f"inputs/{name}"].requires_grad_() for name in ("semantic", "geometry"))
    pooled: list[Tensor] = []
    handle = transform.downsample.register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0]))
    with torch.no_grad():
        own_bev, _ = transform(semantic, geometry, transform.plan(cameras_of(oracle), size, stride))
    bev, prob = transform(semantic, geometry, stored_plan(oracle, transform))
    handle.remove()

    prob = prob.flatten(0, 1)
    yield Output("out/depth_prob", leading(prob, oracle, "out/depth_prob"), MAPS)
    yield Output("out/depth_prob_argmax", prob.argmax(1), Tolerance(share=0.999, bf16=0.1))  # near ties
    if "out/bev_pooled" in oracle:
        own, given = (leading(p, oracle, "out/bev_pooled") for p in pooled)
        yield Output("out/bev_pooled (own cells)", own, POOLED)
        yield Output("out/bev_pooled (stored cells)", given, MAPS)
    channels = pooled[1].double()
    rounding = Tolerance(1e-6 * channels.abs().sum((-2, -1)).max().item(), bf16=0.002)
    yield Output("out/bev_pooled_sum", channels.sum((-2, -1)), rounding)
    yield Output("out/bev (own cells)", own_bev, BEV)
    yield Output("out/bev (stored cells)", bev, MAPS)
    labels = transform.bins.labels(at_stride(stored_depth_map(oracle), stride))
    loss = view_of(oracle).depth_weight * depth_loss(prob, labels)
    yield Output("out/depth_loss", loss, LOSS)

    if "grad/loss_weight" not in oracle:
        return
    terms = bev.double() * oracle["grad/loss_weight"]
    total = terms.sum() + 100 * loss
    total.backward()
    yield Output("grad/total", total, Tolerance(1e-7 * terms.abs().sum().item(), bf16=0.03))
    for tensor, name in ((semantic, "semantic"), (geometry, "geometry")):
        yield Output(f"grad/{name}", leading(tensor.grad, oracle, f"grad/{name}"), INPUT_GRADIENTS)
        yield Output(f"grad/{name}_norm", tensor.grad.double().norm(), Tolerance(relative=1e-4, bf16=0.01))
    key = "grad/norm/"
    yield from norms(oracle, key, gradients(oracle, key, transform, "view_transform."), GRADIENTS, 0.01)


def splat_in_training(oracle: Oracle) -> Iterator[Output]:
    if "train/bev_sub" not in oracle:
        return
    transform = view_transform_of(oracle).train()
    with torch.no_grad():
        bev, prob = transform(oracle["inputs/semantic"], oracle["inputs/geometry"], stored_plan(oracle, transform))
    yield Output("train/bev_sub", bev[:, :, ::4, ::4], Tolerance(1e-4, bf16=0.02))
    yield Output("train/bev_norm", bev.double().norm(), Tolerance(relative=1e-5, bf16=0.0005))
    labels = transform.bins.labels(at_stride(stored_depth_map(oracle), oracle.config["stride"]))
    loss = view_of(oracle).depth_weight * depth_loss(prob.flatten(0, 1), labels)
    yield Output("train/depth_loss", loss, LOSS)
    yield from statistics(oracle, "train/", transform, "view_transform.")


def gradients(oracle: Oracle, prefix: str, model: nn.Module, inside: str = "") -> dict[str, Tensor | None]:
    """The gradients of the parameters whose original names are stored below `prefix`."""
    parameters = dict(model.named_parameters())
    return {name: parameters[ours(name).removeprefix(inside)].grad for name in oracle.below(prefix)}


KINDS = (
    Kind(
        "geomim_lss",
        ("inputs/semantic", "geom/cell_flat"),
        ("sd/*", "inputs/*", "grad/loss_weight", "geom/near_border"),
        (depth_targets, geometry, splat, splat_in_training),
    ),
)
