"""What the checks of whole camera detectors share: the detector, images and cameras of a file."""

from typing import Any

import numpy as np
import torch
from oracles.base import Oracle, Tolerance
from torch import Tensor

from models.bevdet.cameras import Cameras
from models.bevdet.detector import BevDet
from models.bevdet.layout import bevdet_to_public, fill_bevdet, read_bevdet
from models.center_head import CenterPointHead
from models.depth_bins import DepthBins
from models.lift_splat import BevGrid
from models.swin import Swin

# Upstream takes RGB for BGR: channel 0 is blue with red's statistics.
MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])

GRADIENTS = 1e-4  # relative
CELLS = Tolerance(share=1 - 2e-4)  # points on a border
RAW = Tolerance(2e-5)  # the head's maps
POSES = Tolerance(of_max=1e-6)


def grid_of(view: dict[str, Any]) -> BevGrid:
    x, y, z = (view["grid_config"][axis] for axis in "xyz")
    return BevGrid(tuple(x[:2]), tuple(y[:2]), tuple(z[:2]), x[2])


def bins_of(view: dict[str, Any]) -> DepthBins:
    return DepthBins(*view["grid_config"]["depth"], "log" if view.get("sid") else "even")


def detector_of(oracle: Oracle, align_after_splat: bool = False) -> BevDet:
    """The file's detector in eval(), with the released detectors' quirks."""
    model = oracle.config["model"]
    swin, view, bev = (model[name] for name in ("img_backbone", "img_view_transformer", "img_bev_encoder_backbone"))
    depth_net = view.get("depthnet_cfg")
    detector = BevDet(
        Swin(swin["embed_dims"], tuple(swin["depths"]), tuple(swin["num_heads"]), tuple(swin["window_size"])),
        head_of(model),
        grid_of(view),
        bins_of(view),
        tuple(view["input_size"]),
        image_out=model["img_neck"]["out_channels"],
        context=view["out_channels"],
        bev_widths=tuple(bev["num_channels"]),
        bev_out=model["img_bev_encoder_neck"]["out_channels"],
        frames=1 + model["num_adj"],
        camera_aware=depth_net is not None,
        aspp_width=depth_net["aspp_mid_channels"] if depth_net else 96,
        stereo=bool(depth_net and depth_net.get("stereo")),
        stereo_bias=depth_net.get("bias", 0.0) if depth_net else 0.0,
        align_after_splat=align_after_splat,
        truncate_cells=True,
        align_at_corners=True,
    )
    fill_bevdet(detector, read_bevdet(oracle.state()))
    return detector.eval()


def head_of(model: dict[str, Any]) -> CenterPointHead:
    head, train = model["pts_bbox_head"], model["train_cfg"]["pts"]
    return CenterPointHead(
        head["in_channels"],
        train["point_cloud_range"],
        tuple(size * train["out_size_factor"] for size in train["voxel_size"][:2]),
        [task["class_names"] for task in head["tasks"]],
        head["share_conv_channel"],
    )


def images_of(oracle: Oracle) -> Tensor:
    """(B, T, N, 3, H, W); the file's are camera-major."""
    images = (oracle["inputs/img_u8"].flip(-1).float() - MEAN) / STD
    views = len(oracle.array("cams"))
    return images.movedim(-1, 2).unflatten(1, (views, -1)).transpose(1, 2).contiguous()


def cameras_of(oracle: Oracle, group: str = "inputs") -> Cameras:
    """The stored matrices, which are frame-major. The key ego frame is the first camera's."""
    views = len(oracle.array("cams"))

    def frames(name: str) -> np.ndarray:
        rows = oracle.array(f"{group}/{name}")
        return rows.reshape(len(rows), -1, views, *rows.shape[2:])

    to_ego, to_global = (frames(name).astype(np.float64) for name in ("sensor2ego", "ego2global"))
    poses = np.linalg.inv(to_global[:, :1, :1]) @ to_global @ to_ego
    post = np.zeros(poses.shape, np.float32)
    post[..., :3, :3], post[..., :3, 3], post[..., 3, 3] = frames("post_rots"), frames("post_trans"), 1
    scene = np.tile(np.eye(4, dtype=np.float32), (len(poses), 1, 1))
    scene[:, :3, :3] = oracle.array(f"{group}/bda")
    matrices = (frames("intrins"), post, poses.astype(np.float32), scene)
    return Cameras(*(torch.from_numpy(np.ascontiguousarray(matrix)) for matrix in matrices))


def depth_maps_of(oracle: Oracle) -> Tensor:
    """(B, N, H, W), m; 0 where there is no point."""
    maps = np.zeros(oracle.array("gt/depth_shape"), np.float32)
    maps[tuple(oracle.array("gt/depth_index").astype(int).T)] = oracle.array("gt/depth_value")
    return torch.from_numpy(maps)


def public_gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    """The gradients of a detector's parameters by their public names, in the public order of channels."""
    return bevdet_to_public({n: p.grad for n, p in module.named_parameters() if p.grad is not None})
