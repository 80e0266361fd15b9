"""The whole student against what the original code computes (see shared/oracles/README.md for the tolerances)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.depth_bins import DepthBins, depth_loss, nearest_in_cells
from models.geomim.decoder import Decoder
from models.geomim.model import GeoMIM
from models.geomim.target import normalise_patches, reconstruction_loss
from models.geomim.view_transform import Cameras, ViewTransform
from models.layouts import geomim_from_original, without_prefix
from models.lift_splat import BevGrid
from models.masking import halves
from models.swin import Swin

ORACLES = Path(__file__).parents[4] / "shared/oracles"
pytestmark = pytest.mark.skipif(not (ORACLES / "geomim_full.npz").is_file(), reason="needs the oracles in ../shared")

ANY_VIEW_TRANSFORM = {
    "xbound": [-54, 54, 0.3], "ybound": [-54, 54, 0.3], "zbound": [-10, 10, 20], "dbound": [1, 60, 0.5],
    "out_channels": 8, "downsample": 2,
}  # fmt: skip


class Oracle:
    def __init__(self, name):
        self.file = np.load(ORACLES / f"{name}.npz")
        self.config = json.loads(str(self.file["cfg"])) if "cfg" in self.file else None

    def __getitem__(self, key):
        return torch.from_numpy(self.file[key])

    def names(self, prefix):
        return [key.removeprefix(prefix) for key in self.file.files if key.startswith(prefix)]

    def state(self):
        return geomim_from_original({name: self[f"sd/{name}"] for name in self.names("sd/")})

    def cameras(self, group="inputs"):
        lidar_aug = self[f"{group}/lidar_aug_matrix"].unsqueeze(1)
        return Cameras(
            self[f"{group}/camera_intrinsics"][..., :3, :3],
            self[f"{group}/img_aug_matrix"],
            lidar_aug @ self[f"{group}/camera2lidar"],
            self[f"{group}/camera2ego"],
        )


def build_view_transform(dim, c):
    grid = BevGrid(tuple(c["xbound"][:2]), tuple(c["ybound"][:2]), tuple(c["zbound"][:2]), c["xbound"][2])
    return ViewTransform(dim, c["out_channels"], DepthBins(*c["dbound"]), grid, c["downsample"], truncate=True)


def build(swin, view_transform, target_channels):
    backbone = Swin(swin["embed_dims"], swin["depths"], swin["num_heads"], swin["window_size"])
    depth = swin.get("decoder_depth", 8)
    decoder = Decoder(backbone.channels[2], swin["decoder_dim"], swin["decoder_num_heads"], depth)
    transform = build_view_transform(swin["decoder_dim"], view_transform)
    return GeoMIM(backbone, decoder, transform, swin["num_heads"][2], target_channels)


def groups_of(noise, images):
    return halves(noise.view(1, -1).argsort(1), (images.shape[-2] // 32, images.shape[-1] // 32))


def close(value, expected, atol):
    torch.testing.assert_close(value.detach(), expected, atol=atol, rtol=0)


class TestStudent:
    @pytest.fixture
    def oracle(self):
        return Oracle("geomim_student")

    @pytest.fixture
    def model(self, oracle):
        model = build(oracle.config, ANY_VIEW_TRANSFORM, 8).eval()
        missing, unexpected = model.load_state_dict(oracle.state(), strict=False)
        assert not unexpected
        assert all(name.startswith(("view_transform.", "head.")) for name in missing)
        return model

    def decode(self, model, oracle, group, noise):
        images = oracle[f"{group}/img"]
        views = oracle[f"{group}/sensor2ego"].shape[1]
        intrinsics = oracle[f"{group}/cam_intrinsic"][..., :3, :3]
        cameras = Cameras(intrinsics, oracle[f"{group}/img_aug_matrix"], None, oracle[f"{group}/sensor2ego"])
        groups = groups_of(oracle[noise], images)
        with torch.no_grad():
            return groups, model.decode(images.unflatten(0, (-1, views)), cameras, groups)

    def test_maps(self, model, oracle):
        groups, maps = self.decode(model, oracle, "inputs", "noise")
        for half in (0, 1):
            assert torch.equal((groups[0] != half).float(), oracle[f"masks/mask{half}"])
        close(maps.semantic, oracle["out/semantic"], 1e-5)
        close(maps.geometry, oracle["out/geometry"], 1e-5)

    def test_maps_of_another_mask(self, model, oracle):
        _, maps = self.decode(model, oracle, "inputs", "draw2/noise")
        every = len(oracle["inputs/img"])
        close(maps.semantic[::every], oracle["draw2/semantic"], 1e-5)
        close(maps.geometry[::every], oracle["draw2/geometry"], 1e-5)

    def test_maps_of_an_odd_number_of_cells(self, model, oracle):
        _, maps = self.decode(model, oracle, "odd", "odd/noise")
        close(maps.semantic[::3], oracle["odd/semantic"], 1e-5)
        close(maps.geometry[::3], oracle["odd/geometry"], 1e-5)

    def test_training_statistics(self, model, oracle):
        _, maps = self.decode(model.train(), oracle, "inputs", "noise")
        close(maps.geometry, oracle["train/geometry"], 1e-5)
        norm = model.decoder.camera_gate.bn
        torch.testing.assert_close(norm.running_mean, oracle["train/bn_running_mean"])
        torch.testing.assert_close(norm.running_var, oracle["train/bn_running_var"])


class TestLiftSplat:
    @pytest.fixture
    def oracle(self):
        return Oracle("geomim_lss")

    @pytest.fixture
    def transform(self, oracle):
        transform = build_view_transform(oracle.config["in_channels"], oracle.config)
        transform.load_state_dict(without_prefix(oracle.state(), "view_transform."))
        return transform.eval()

    def labels(self, oracle, transform):
        b, n, *_ = oracle["geom/cell_flat"].shape
        depth_map = torch.zeros(b * n, *oracle.config["image_size"])
        depth_map[oracle["depth/gt_index"].long().unbind(1)] = oracle["depth/gt_value"]
        return transform.bins.labels(nearest_in_cells(depth_map, oracle.config["stride"]))

    def test_cells(self, oracle, transform):
        cells = transform.cells(oracle.cameras(), tuple(oracle.config["image_size"]), oracle.config["stride"])
        assert (cells != oracle["geom/cell_flat"]).float().mean() < 1e-4  # points on borders flip with rounding

    def test_labels(self, oracle, transform):
        assert torch.equal(self.labels(oracle, transform), oracle["depth/bins"].long())

    def test_forward_and_backward(self, oracle, transform):
        semantic, geometry = (oracle[f"inputs/{name}"].requires_grad_() for name in ("semantic", "geometry"))
        bev, prob = transform(semantic, geometry, oracle["geom/cell_flat"].long())
        stored = oracle["out/depth_prob"]
        close(prob.flatten(0, 1)[: len(stored)], stored, 1e-5)
        close(bev, oracle["out/bev"], 1e-5)
        loss = 0.01 * depth_loss(prob.flatten(0, 1), self.labels(oracle, transform))
        close(loss, oracle["out/depth_loss"], 2e-6)
        ((bev * oracle["grad/loss_weight"]).sum() + 100 * loss).backward()
        for tensor, name in ((semantic, "semantic"), (geometry, "geometry")):
            close(tensor.grad[:, :2], oracle[f"grad/{name}"], 1e-5)
            torch.testing.assert_close(tensor.grad.norm(), oracle[f"grad/{name}_norm"], rtol=1e-4, atol=0)

    def test_training_statistics(self, oracle, transform):
        cells = oracle["geom/cell_flat"].long()
        bev, _ = transform.train()(oracle["inputs/semantic"], oracle["inputs/geometry"], cells)
        close(bev[:, :, ::4, ::4], oracle["train/bev_sub"], 1e-4)
        buffers = dict(transform.named_buffers())
        for name in oracle.names("train/encoders."):
            ours = next(iter(geomim_from_original({f"encoders.{name}": None}))).removeprefix("view_transform.")
            torch.testing.assert_close(buffers[ours], oracle[f"train/encoders.{name}"], rtol=1e-4, atol=1e-5)


def test_target():
    oracle = Oracle("geomim_target")
    target = normalise_patches(oracle["inputs/lidar_feature"], int(oracle["patch"]))
    close(target, oracle["out/target"], 1e-5)
    losses = [reconstruction_loss(oracle[f"inputs/camera{half}"], target) for half in (0, 1)]
    close(sum(losses) / 2, oracle["out/rec_loss"], 1e-5)


def last_hit_depth_map(oracle, size):
    """The original's depth map: of several points in a pixel the last one in scan order wins."""
    lidar_aug = oracle["inputs/lidar_aug_matrix"]
    batch, views = oracle["inputs/lidar2image"].shape[:2]
    depth = torch.zeros(batch, views, *size)
    for b in range(batch):
        points = oracle[f"inputs/points{b}"][:, :3] - lidar_aug[b, :3, 3]
        points = points @ torch.inverse(lidar_aug[b, :3, :3]).T
        for n in range(views):
            project, post = oracle["inputs/lidar2image"][b, n], oracle["inputs/img_aug_matrix"][b, n]
            uvz = points @ project[:3, :3].T + project[:3, 3]
            z = uvz[:, 2:].clamp(1e-5, 1e5)
            uvz = torch.cat([uvz[:, :2] / z, z], 1) @ post[:3, :3].T + post[:3, 3]
            inside = (uvz[:, 0] >= 0) & (uvz[:, 0] < size[1]) & (uvz[:, 1] >= 0) & (uvz[:, 1] < size[0])
            u, v = uvz[inside, :2].long().unbind(1)
            flat = {int(p): float(d) for p, d in zip(v * size[1] + u, uvz[inside, 2])}  # the last of equals stays
            depth[b, n].view(-1)[list(flat)] = torch.tensor(list(flat.values()))
    return depth


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_losses_and_gradients(mode):
    oracle = Oracle("geomim_full")
    model = build(oracle.config["swin"], oracle.config["vtransform"], oracle.config["bev_feat_dim"])
    model.load_state_dict(oracle.state())
    model.train(mode == "train")
    images = oracle["inputs/img"]
    made = model(images, oracle.cameras(), groups_of(oracle["noise"], images))
    losses = model.losses(made, oracle["inputs/lidar_feature"], last_hit_depth_map(oracle, images.shape[-2:]))
    losses.total.backward()
    close(losses.reconstruction, oracle[f"{mode}/rec_loss"], 2e-6)
    close(0.01 * losses.depth, oracle[f"{mode}/depth_loss"], 2e-6)
    close(losses.total, oracle[f"{mode}/loss"], 2e-6)
    for half in (0, 1):
        close(made.bev[half][:, :4], oracle[f"{mode}/pred{half}"], 1e-3)

    parameters = dict(model.named_parameters())
    for name in oracle.names(f"{mode}/gradnorm/"):
        expected = oracle[f"{mode}/gradnorm/{name}"]
        if expected < 1e-6:
            continue
        ours = parameters[next(iter(geomim_from_original({name: None})))]
        torch.testing.assert_close(ours.grad.norm(), expected, rtol=1e-3, atol=0, msg=name)
    if mode == "train":
        buffers = dict(model.named_buffers())
        for name in oracle.names("train/bn_after/"):
            ours = buffers[next(iter(geomim_from_original({name: None})))]
            torch.testing.assert_close(ours, oracle[f"train/bn_after/{name}"], rtol=1e-4, atol=1e-6)
