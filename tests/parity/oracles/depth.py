"""Depth from LiDAR (depth_projection): calibration chain, projection, and the maps of three codes that use it."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from batches.depth_maps import nearest_depths
from models.geometry import apply, inverse, transform
from oracles.base import Kind, Oracle, Output, Tolerance
from tasks.depth.project import Rig, project_cloud

RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)  # GeoMIM's; the file does not say it
BEVDET_DEPTHS = (1.0, 60.0)  # BEVDet's; nor this
SOURCE_SIZE = (1600, 900)  # nuScenes' cameras
ANYWHERE = -1e6  # px, a margin that cuts nothing

SAME_PIXELS, DEPTHS = Tolerance(share=0.999), Tolerance(1e-3, share=0.999)  # 0.1% of the pixels may differ; m
# The devkit holds global coordinates (1 km) in float32 on the way: 0.1 mm, or a tenth of a pixel close by.
DEVKIT_PIXELS, DEVKIT_DEPTH = Tolerance(0.1), Tolerance(3e-4)


def last_hits(
    points: np.ndarray, lidar_to_camera: np.ndarray, intrinsics: np.ndarray, post: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Depth maps (N, H, W) as the original makes them: of several points in a pixel the last in scan order stays."""
    rig = Rig(intrinsics, np.zeros((len(intrinsics), 2)))
    found = project_cloud(points, lidar_to_camera, rig, 0.0, ANYWHERE)
    return np.stack([_last_map(pixels, depth, matrix, size) for (_, pixels, depth), matrix in zip(found, post)])


def _last_map(pixels: np.ndarray, depth: np.ndarray, post: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W): of the points that fall into a pixel of the augmented image the last one's depth."""
    column, row = np.floor(pixels @ post[:2, :2].T + post[:2, 3]).T
    inside = (column >= 0) & (column < size[1]) & (row >= 0) & (row < size[0])
    last = np.full(size, -1)
    cells = row[inside].astype(int), column[inside].astype(int)
    np.maximum.at(last, cells, np.arange(inside.sum()))  # (plain assignment promises no order)
    return np.append(depth[inside].astype(np.float32), np.float32(0))[last]


def at_stride(maps: Tensor, stride: int) -> Tensor:
    """Nearest depths (M, H/stride, W/stride) of maps (M, H, W) that hold 0 where there is none."""
    targets = []
    for depths in maps.numpy():
        row, column = depths.nonzero()
        targets.append(nearest_depths(column, row, depths[row, column], np.eye(4), depths.shape, stride))
    return torch.from_numpy(np.stack(targets))


def calibration(oracle: Oracle) -> Iterator[Output]:
    """The chain from the tables' quaternions, through the ego poses at both sensors' times."""
    to_camera, intrinsics = _rig(oracle)
    projection = np.tile(np.eye(4), (len(to_camera), 1, 1))
    projection[:, :3, :3] = intrinsics
    mounting = np.stack([_pose(oracle, f"{camera}/sensor2ego") for camera in _cameras(oracle)])
    chain = {
        "lidar2camera": to_camera,
        "camera2lidar": inverse(to_camera),
        "camera_intrinsics": projection,
        "lidar2image": projection @ to_camera,
        "camera2ego": mounting,
        "lidar2ego": _pose(oracle, "lidar_lidar2ego"),
    }
    for name, matrices in chain.items():
        yield Output(f"calib/{name}", matrices, Tolerance(of_max=1e-6))


def maps(oracle: Oracle) -> Iterator[Output]:
    """MIT BEVFusion's depth maps, of the points in range and of all, and BEVDet's."""
    to_camera, intrinsics = _rig(oracle)
    rounded = _rounded_chain(oracle)
    points = oracle.array("points")
    low, high = np.array(RANGE[:3], np.float32), np.array(RANGE[3:], np.float32)
    in_range = ((points[:, :3] > low) & (points[:, :3] < high)).all(1)
    for name in oracle.below("aug_"):
        post, size = oracle.array(f"aug_{name}").astype(np.float64), tuple(oracle.array(f"size_{name}").tolist())
        got = last_hits(points[in_range], to_camera, intrinsics, post, size)
        yield from _map(oracle, f"mit_{name}", got)
        everything = last_hits(points, to_camera, intrinsics, post, size)
        yield Output(f"mit_all_{name}_count", (everything > 0).sum((1, 2)), Tolerance(relative=1e-3))
        yield Output(f"mit_all_{name}_sum", everything.sum((1, 2), np.float64), Tolerance(relative=1e-3))

        rig = Rig(intrinsics, np.zeros((len(intrinsics), 2)))
        nearest = []
        for (_, pixels, depth), homography in zip(project_cloud(points, rounded, rig, 0.0, ANYWHERE), post):
            kept = (depth >= BEVDET_DEPTHS[0]) & (depth < BEVDET_DEPTHS[1])
            rounding = transform(np.eye(3), [0.5, 0.5, 0.0]) @ homography  # its pixels are round(), ours floor()
            nearest.append(nearest_depths(*pixels[kept].T, depth[kept], rounding, size, stride=1))
        yield from _map(oracle, f"bevdet_{name}", np.stack(nearest))


def devkit(oracle: Oracle) -> Iterator[Output]:
    """The devkit's pixels and depths, in the stored images and moved by each augmentation."""
    to_camera, intrinsics = _rig(oracle)
    rig = Rig(intrinsics, np.tile(SOURCE_SIZE, (len(intrinsics), 1)))
    found = project_cloud(oracle.array("points"), to_camera, rig, 1.0, 1.0)
    for number, (camera, (_, pixels, depth)) in enumerate(zip(_cameras(oracle), found, strict=True)):
        yield Output(f"devkit_{camera}_uv", pixels.T, DEVKIT_PIXELS)
        yield Output(f"devkit_{camera}_depth", depth, DEVKIT_DEPTH)
        for name in oracle.below("aug_"):
            homography = oracle.array(f"aug_{name}")[number].astype(np.float64)
            height, width = oracle.array(f"size_{name}")
            u, v = (apply(homography, np.c_[pixels, depth])[:, :2]).T
            inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
            yield Output(f"devkit_{camera}_{name}_uv", np.stack([u, v])[:, inside], DEVKIT_PIXELS)
            yield Output(f"devkit_{camera}_{name}_depth", depth[inside], DEVKIT_DEPTH)


def _map(oracle: Oracle, key: str, got: np.ndarray) -> Iterator[Output]:
    """A map (N, H, W) against the stored `index` (camera, v, u) and `depth` of its pixels."""
    wanted = np.zeros_like(got)
    wanted[tuple(oracle.array(f"{key}_index").T)] = oracle.array(f"{key}_depth")
    labelled = (got > 0) | (wanted > 0)
    yield Output(f"{key}_index (labelled pixels)", got[labelled] > 0, SAME_PIXELS, wanted[labelled] > 0)
    yield Output(f"{key}_depth", got[labelled], DEPTHS, wanted[labelled])


def _cameras(oracle: Oracle) -> list[str]:
    return oracle.array("cams").tolist()


def _pose(oracle: Oracle, name: str) -> np.ndarray:
    return transform(oracle.array(f"raw/{name}_rotation"), oracle.array(f"raw/{name}_translation"))


def _rig(oracle: Oracle) -> tuple[np.ndarray, np.ndarray]:
    """Key LiDAR to each camera (N, 4, 4), and intrinsics (N, 3, 3)."""
    lidar_to_global = _pose(oracle, "lidar_ego2global") @ _pose(oracle, "lidar_lidar2ego")
    cameras = _cameras(oracle)
    to_global = np.stack([_pose(oracle, f"{c}/ego2global") @ _pose(oracle, f"{c}/sensor2ego") for c in cameras])
    return inverse(to_global) @ lidar_to_global, np.stack([oracle.array(f"raw/{c}/camera_intrinsics") for c in cameras])


def _rounded_chain(oracle: Oracle) -> np.ndarray:
    """Key LiDAR to each camera as BEVDet has it: in float32 through global coordinates of 1 km, 0.2 mm off.

    Each product and each sum is rounded by itself: what a library's `@` does differs from processor to processor.
    """

    def pose(name: str) -> torch.Tensor:
        return torch.from_numpy(_pose(oracle, name)).float()

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return sum(a[:, k, None] * b[k] for k in range(4))

    lidar_to_global = product(pose("lidar_ego2global"), pose("lidar_lidar2ego"))
    to_global = [product(pose(f"{camera}/ego2global"), pose(f"{camera}/sensor2ego")) for camera in _cameras(oracle)]
    return np.stack([product(torch.inverse(matrix), lidar_to_global).double().numpy() for matrix in to_global])


KINDS = (
    Kind(
        "depth_projection",
        ("points", "calib/lidar2image", "cams"),
        ("points", "cams", "raw/*", "aug_*", "size_*"),
        (calibration, maps, devkit),
    ),
)
