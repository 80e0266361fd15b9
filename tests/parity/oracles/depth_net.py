"""The camera-aware depth net, with and without stereo, on stored features (depth_net27)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from models.bevdet import cost_volume
from models.bevdet.depth_net import CameraDepthNet
from models.bevdet.layout import bevdet_from_public
from models.cameras import Cameras
from models.depth_bins import depth_loss
from models.lift_splat import SplatPlan, bev_cells, splat
from models.public.bevdet import read_view
from models.public.used import Used
from models.rays import feature_pixels, frustum, pixel_rays
from oracles.base import Kind, Oracle, Output, Tolerance, leading, norms
from oracles.detector import CELLS, GRADIENTS, POSES, cameras_of, depth_targets_of, public_gradients

FINE, COARSE = 4, 16  # strides of the features that are compared, and of those that are lifted
OUT, COST = Tolerance(1e-5, bf16=0.02), Tolerance(5e-5)  # the features that are compared are stored ones
MAPS = Tolerance(1e-5, share=0.995, bf16=0.02)
LOSS = Tolerance(relative=1e-5, bf16=0.003)
FRUSTUM = Tolerance(of_max=1e-6)
PLACES = Tolerance(1e-5)


class Lift(nn.Module):
    """A depth net and the splat behind it, with the names of `BevDet`."""

    def __init__(self, settings: dict[str, Any]):
        super().__init__()
        view = read_view(Used(settings, "img_view_transformer"))
        self.size, self.grid, self.bins, self.bias = view.image_size, view.grid, view.depth_bins, view.stereo_bias
        self.depth_net = CameraDepthNet(view.in_channels, self.bins.count, view.context, view.aspp_width, view.stereo)
        self.depth_weight = view.depth_weight
        self.edges = self.bins.edges()

    def cells(self, cameras: Cameras) -> Tensor:
        rays = pixel_rays(cameras.lens(0), cameras.camera_to_bev(0), feature_pixels(self.size, COARSE))
        return bev_cells(rays.at(self.edges), self.grid, order="yx", truncate=True)

    def forward(self, features: Tensor, cameras: Cameras, cost: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """BEV (B, C, Y, X), depth probabilities (B N, D, h, w), context (B N, C, h, w)."""
        out = self.depth_net(features.flatten(0, 1), cameras.scene_vector(0).flatten(0, 1), cost)
        depth, context = out[:, : self.bins.count].softmax(1), out[:, self.bins.count :]
        nx, ny = self.grid.shape
        by_camera = (value.unflatten(0, features.shape[:2]) for value in (depth, context))
        plan = SplatPlan.of(self.cells(cameras), nx * ny)
        return splat(*by_camera, plan).unflatten(2, (ny, nx)), depth, context


def lift_of(oracle: Oracle, name: str) -> Lift:
    lift = Lift(oracle.config[name])
    lift.load_state_dict(bevdet_from_public(oracle.state(f"{name}/sd/")))
    return lift.eval()


def poses(oracle: Oracle) -> Iterator[Output]:
    cameras = cameras_of(oracle)
    for frame in range(cameras.intrinsics.shape[1]):
        yield Output(f"prep/sensor2keyego{frame}", cameras.camera_to_frame[:, frame], POSES)
    for frame in range(cameras.intrinsics.shape[1] - 1):
        yield Output(f"prep/curr2adjsensor{frame}", cameras.to_earlier(frame), POSES)


def mono(oracle: Oracle) -> Iterator[Output]:
    yield Output("mono/mlp_input_adjacent", cameras_of(oracle).scene_vector(1), POSES)
    yield from _lifted(oracle, "mono", None)


def stereo(oracle: Oracle) -> Iterator[Output]:
    lift, cameras = lift_of(oracle, "stereo"), cameras_of(oracle)
    with torch.no_grad():
        rays = cost_volume.rays(cameras, 0, lift.size, FINE)
        compared = oracle["inputs/cv_curr"], oracle["inputs/cv_prev"]
        cost = cost_volume.cost_volume(*compared, rays, lift.edges, lift.bias, FINE)
        yield Output("stereo/cost_volume", leading(cost[:, :, ::2, ::2], oracle, "stereo/cost_volume"), COST)
        yield Output("stereo/cost_argmax", cost.argmax(1), Tolerance(share=0.999))
        yield Output("stereo/cost_max", cost.amax(1), COST)
        places = torch.stack([cost_volume.places(rays, depth, lift.size) for depth in lift.edges[::6]], 1)
        places = places[:, :, ::5, ::7]
        wanted = oracle["stereo/grid_sub"]
        near = wanted.abs().amax(-1) < 1.5  # far ones are ill-conditioned
        yield Output("stereo/grid_sub (near)", places[near], PLACES, wanted[near])
        behind = (wanted == cost_volume.OUTSIDE).all(-1)
        yield Output("stereo/grid_sub (behind)", places[behind], Tolerance(), wanted[behind])
        corners = ((0, 0, 0), (-1, -1, -1), (1, 2, 3))
        fine = frustum(lift.edges, lift.size, FINE)
        yield Output("stereo/cv_frustum_corner", torch.stack([fine[place] for place in corners]), FRUSTUM)
        bev, depth, _ = lift(oracle["inputs/x"], cameras, None)
        yield Output("stereo/noprev_depth_prob", leading(depth, oracle, "stereo/noprev_depth_prob"), OUT)
        yield Output("stereo/noprev_bev_norm", bev.double().norm(), Tolerance(relative=1e-5, bf16=0.002))
    yield from _lifted(oracle, "stereo", cost)


def _lifted(oracle: Oracle, name: str, cost: Tensor | None) -> Iterator[Output]:
    lift, cameras = lift_of(oracle, name), cameras_of(oracle)
    features = oracle["inputs/x"].requires_grad_()
    bev, depth, context = lift(features, cameras, cost)
    yield Output(f"{name}/mlp_input", cameras.scene_vector(0), POSES)
    yield Output(f"{name}/depth_prob", leading(depth, oracle, f"{name}/depth_prob"), OUT)
    yield Output(f"{name}/depth_argmax", depth.argmax(1), Tolerance(share=0.999, bf16=0.04))
    yield Output(f"{name}/context", context, OUT)
    yield Output(f"{name}/cell_flat", lift.cells(cameras), CELLS)
    yield Output(f"{name}/bev", bev, MAPS)
    corners = ((0, 0, 0), (-1, -1, -1), (1, 2, 3), (5, 0, 1))
    coarse = frustum(lift.edges, lift.size, COARSE)
    yield Output(f"{name}/frustum_corner", torch.stack([coarse[place] for place in corners]), FRUSTUM)

    labels = lift.bins.labels(depth_targets_of(oracle)).flatten(0, 1)
    yield Output(f"{name}/gt_bins", labels, Tolerance(share=0.999))
    loss = lift.depth_weight * depth_loss(depth, labels)
    yield Output(f"{name}/depth_loss", loss, LOSS)
    total = (bev * oracle[f"{name}/loss_weight"]).mean() + loss
    yield Output(f"{name}/total", total, LOSS)
    total.backward()
    key = f"{name}/x_grad"
    yield Output(key, leading(features.grad, oracle, key), Tolerance(of_max=GRADIENTS, bf16=0.25))
    yield Output(f"{key}_norm", features.grad.norm(), Tolerance(relative=GRADIENTS, bf16=0.01))
    gradients = public_gradients(lift)
    yield from norms(oracle, f"{name}/gradnorm/", gradients, GRADIENTS, 0.01)
    for parameter in oracle.below(f"{name}/grad/"):
        yield Output(f"{name}/grad/{parameter}", gradients[parameter], Tolerance(of_max=GRADIENTS, bf16=0.06))


KINDS = (
    Kind(
        "depth_net27",
        ("mono/mlp_input", "inputs/cv_curr"),
        ("mono/sd/*", "stereo/sd/*", "inputs/*", "gt/*", "cams", "*/loss_weight"),
        (poses, mono, stereo),
    ),
)
