"""The teacher against what the original code computes (files beside the repository; skipped where they are absent)."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.lidar.checkpoint import load_encoder
from models.lidar.detector import BEVBackbone
from models.lidar.encoder import SparseEncoder
from models.lidar.grid import VoxelGrid
from models.lidar.voxelize import voxelize

ORACLES = Path(__file__).resolve().parents[4] / "shared" / "oracles"


def oracle(name: str):
    path = ORACLES / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    file = np.load(path, allow_pickle=False)
    return file, json.loads(str(file["cfg"]))


def weights(file, prefix: str) -> dict[str, torch.Tensor]:
    return {k[len(prefix) :]: torch.from_numpy(np.asarray(file[k])) for k in file.files if k.startswith(prefix)}


def test_voxelisation():
    file, config = oracle("teacher_sparse.npz")
    grid = VoxelGrid(
        tuple(config["point_cloud_range"]), tuple(config["voxel_size"]), config["max_num_points"], config["max_voxels"]
    )
    points = torch.from_numpy(file["points/0"])
    full_grid = dataclasses.replace(grid, range=tuple(file["voxel/full_range"].tolist()))
    full_points = torch.from_numpy(np.pad(file["voxel/full_points_xyzi"], ((0, 0), (0, 1))))
    small_grid = dataclasses.replace(grid, max_voxels=int(file["voxel/max_voxels_small"]))
    first = file["voxel/coords"][:, 0] == 0
    for voxels, coords, counts in (
        (voxelize(points, grid), file["voxel/coords"][first, 1:], file["voxel/num_points"][first]),
        (voxelize(points, small_grid), file["voxel/coords_small"], file["voxel/num_points_small"]),
        (voxelize(full_points, full_grid), file["voxel/full_coords"], file["voxel/full_num_points"]),
    ):
        np.testing.assert_array_equal(voxels.coords.numpy(), coords)
        np.testing.assert_array_equal(voxels.counts.numpy(), counts)
    np.testing.assert_allclose(voxelize(points, grid).means.numpy(), file["voxel/mean"][first], atol=1e-6)
    np.testing.assert_allclose(
        voxelize(full_points, full_grid).means.numpy()[::50], file["voxel/full_mean_rows"], atol=1e-6
    )


def test_sparse_encoder():
    file, config = oracle("teacher_sparse.npz")
    channels = config["encoder_channels"]
    encoder = SparseEncoder(
        tuple(config["sparse_shape"]),
        config["in_channels"],
        tuple(level[0] for level in channels),
        config["output_channels"],
        len(channels[-1]),
    ).eval()
    assert load_encoder(encoder, weights(file, "sd/")) == []
    means, coords = torch.from_numpy(file["voxel/mean"]), torch.from_numpy(file["voxel/coords"].astype(np.int64))
    with torch.inference_mode():
        got = encoder(means, coords, config["batch"]).numpy()
    wanted = file["out/dense"]
    np.testing.assert_array_equal(got != 0, wanted != 0)
    assert np.abs(got - wanted).max() <= 1e-5 * float(file["out/max_abs"])


def test_bev_backbone():
    file, config = oracle("teacher_bev.npz")
    widths, layers = config["backbone"]["out_channels"], config["backbone"]["layer_nums"]
    net = BEVBackbone(config["backbone"]["in_channels"], widths, layers, config["neck"]["out_channels"][0]).eval()
    net.load_state_dict(weights(file, "sd/decoder."))
    with torch.inference_mode():
        got = net(torch.from_numpy(file["inputs/bev"])).numpy()
    np.testing.assert_allclose(got, file["out/neck"], atol=1e-5)
