"""Pretraining's batches on a made-up rig, through the real stores: one sample's randomness, and its geometry."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from batches.geomim import GeoMIMBatch, GeoMIMBatches, camera_to_key_lidar
from geomim_configs import changed, geomim_batches, geomim_config
from models import geometry
from models.names import CAMERAS, CLASSES
from storage.bev import FLIPS, BevAttributes, BevReader, BevWriter
from storage.depth import DepthReader, DepthWriter
from storage.index import FIXED, SCHEMA, Index, IndexAttributes, write_index
from tasks.depth.project import Rig, project_sample
from training.order import positions_at, sample_at, share
from training.prefetch import Prefetcher

SAMPLES, WIDTH, CELLS = 5, 128, 16
HEIGHTS = np.array([72, 60, 72, 104, 72, 72])  # of each camera's images: a rig need not have one size
CONFIG = geomim_config(
    image={"size": (64, 96), "rot": (-20, 20)},
    depth_bins=(1.0, 11.0, 1.0),
    depth_sweeps=0,
    patch=4,
    batch_size=4,
    seed=3,
)
POINTS = np.random.default_rng(5).uniform([-8, -8, -1], [8, 8, 2], (SAMPLES, 40, 3))  # m, key LIDAR_TOP frame


@pytest.fixture(scope="module")
def batches(tmp_path_factory) -> GeoMIMBatches:
    """Cameras all around, 40 points a sample seen by them, and a BEV whose cells hold the number of a point in them."""
    root = tmp_path_factory.mktemp("rig")
    write_index(root / "index.zarr", made_up_arrays(), IndexAttributes("v1.0-mini", CAMERAS, CLASSES))
    index = Index.open(root / "index.zarr")
    generator = np.random.default_rng(0)
    for paths in index.camera_path:
        for path, height in zip(paths, HEIGHTS):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (height, WIDTH, 3), np.uint8)).save(root / path)
    attributes = BevAttributes((-8.0, -8.0, -5.0, 8.0, 8.0, 3.0), (1.0, 1.0), SAMPLES)
    bev = BevWriter(root / "bev.zarr", index.token, (2, CELLS, CELLS), attributes)
    bev.write(0, [bev_of(points) for points in POINTS])
    depth = DepthWriter(root / "depth.zarr", index.token, CAMERAS, 0, SAMPLES, most=40)
    to_camera = [geometry.inverse(camera_to_key_lidar(index, s)) for s in range(SAMPLES)]
    rigs = [Rig(index.intrinsics[s], index.image_size[s]) for s in range(SAMPLES)]
    depth.write(
        0,
        [
            project_sample([points.astype(np.float32)], chain[None], rig, 0.5, 1.0)
            for points, chain, rig in zip(POINTS, to_camera, rigs)
        ],
    )
    return geomim_batches(CONFIG, root, index, BevReader(root / "bev.zarr"), DepthReader(root / "depth.zarr"))


def made_up_arrays() -> dict[str, np.ndarray]:
    """An index of one scene: the cameras look around in turn, and the ego moves between LiDAR and cameras."""
    sizes = FIXED | {"sample": SAMPLES, "sample_edge": SAMPLES + 1, "camera": 6}
    sizes |= {"scene": 1, "sweep": 1, "frame": 1, "box": 0}
    arrays = {
        name: np.full([sizes[d] for d in dimensions], "", object)
        if dtype == "str"
        else np.zeros([sizes[d] for d in dimensions], dtype)
        for name, (dtype, dimensions) in SCHEMA.items()
    }
    arrays["token"][:] = [f"sample-{s}" for s in range(SAMPLES)]
    arrays["split"][:] = "train"
    arrays["camera_path"][:] = [[f"samples/{c}/{s}.jpg" for c in CAMERAS] for s in range(SAMPLES)]
    arrays["image_size"][:] = [(WIDTH, height) for height in HEIGHTS]
    arrays["intrinsics"][:] = [[[60, 0, WIDTH / 2], [0, 60, height / 2], [0, 0, 1]] for height in HEIGHTS]
    ahead = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # a camera's z, x, y in an ego that looks along x
    around = geometry.rotation_z(np.arange(6) * np.pi / 3) @ ahead
    arrays["camera_to_ego"][:] = geometry.transform(around, [[0.5, 0.1, 0.3]] * 6)
    arrays["lidar_to_ego"][:] = geometry.transform(geometry.rotation_z(-np.pi / 2), [0.3, 0, 0.5])
    for name, late in (("lidar_ego_to_global", 0.0), ("camera_ego_to_global", 0.1)):
        pose = geometry.transform(geometry.rotation_z(0.7 + late), [100 + 5 * late, 40, 1])
        arrays[name][:] = pose
    return arrays


def cell_of(points: np.ndarray) -> np.ndarray:
    """(n, 2): x and y cell of points (n, 3)."""
    return np.floor(points[:, :2] + CELLS / 2).astype(int)


def bev_of(points: np.ndarray) -> np.ndarray:
    """(2, X, Y): in a point's cell its number + 1 (the last one's, of several), and a 1."""
    bev = np.zeros((2, CELLS, CELLS))
    for number, (x, y) in enumerate(cell_of(points), 1):
        bev[:, x, y] = number, 1
    return bev


def signs_of(batch: GeoMIMBatch, plain: GeoMIMBatch) -> np.ndarray:
    """(B, 3): what the scenes' axes were multiplied by."""
    mirror = batch.cameras.camera_to_bev()[:, 0] @ torch.inverse(plain.cameras.camera_to_bev()[:, 0])
    np.testing.assert_allclose(mirror, np.stack([np.diag(np.diag(m).round()) for m in mirror]), atol=1e-4)
    return mirror.diagonal(dim1=1, dim2=2).round()[:, :3].numpy()


def test_a_mirrored_point_is_where_bev_cameras_and_depth_say(batches):
    """Each LiDAR point, mirrored with the scene: its BEV cell holds it, its cell in each camera the nearest depth."""
    samples, seen, compared = np.arange(SAMPLES), set(), 0
    for step in range(8):
        batch = batches.training_at(positions_at(step, CONFIG.batch_size), samples)
        rows = [int(token.removeprefix("sample-")) for token in batch.tokens]
        signs = signs_of(batch, batches.held_out(np.array(rows)))
        bev, cameras = batch.lidar_bev(), batch.cameras
        for b, row in enumerate(rows):
            seen.add(tuple(signs[b, :2].tolist()))
            points, number = POINTS[row] * signs[b], bev_of(POINTS[row])[0]
            for (x, y), (i, j) in zip(cell_of(points), cell_of(POINTS[row])):
                assert bev[b, 0, x, y] == number[i, j]
            matrices = cameras.intrinsics[b, 0], cameras.post_homography[b, 0], cameras.camera_to_bev()[b]
            for n, (intrinsics, post, to_lidar) in enumerate(zip(*(m.double().numpy() for m in matrices))):
                in_camera = geometry.apply(np.linalg.inv(to_lidar), points)
                pixels, depth = geometry.project(in_camera, intrinsics)
                u, v = geometry.apply(post, np.c_[pixels, depth])[:, :2].T
                margin = [WIDTH - 1, HEIGHTS[n] - 1]  # the depth cache's
                inside = (u > 0) & (u < 96) & (v > 0) & (v < 64) & (depth > 0.5)
                inside &= (pixels > 1).all(1) & (pixels < margin).all(1)
                cells = np.stack([v, u])[:, inside] / 16
                wanted, sure = np.full((4, 6), np.inf), np.ones((4, 6), bool)
                np.minimum.at(wanted, tuple(cells.astype(int)), depth[inside])
                wanted[np.isinf(wanted)] = 0
                on_border = (np.abs(cells - cells.round()) < 1e-4).any(0)  # float32 might say the next cell
                for side in (-1e-4, 1e-4):
                    sure[tuple((cells[:, on_border] + side).clip(0, [[3], [5]]).astype(int))] = False
                np.testing.assert_allclose(batch.depth_map[b, n].numpy()[sure], wanted[sure], rtol=1e-4)
                compared += int((wanted > 0)[sure].sum())
    assert len(seen) == 4
    assert compared > 500


def test_a_mirrored_scene_has_its_own_map_where_the_store_keeps_one(batches, tmp_path):
    attributes = replace(batches.bev.attributes, flips=FLIPS)
    writer = BevWriter(tmp_path / "bev.zarr", batches.index.token, (2, CELLS, CELLS), attributes)
    writer.write(0, np.random.default_rng(1).normal(size=(4 * SAMPLES, 2, CELLS, CELLS)))
    bev = BevReader(tmp_path / "bev.zarr")
    own = geomim_batches(CONFIG, batches.masked.dataroot, batches.index, bev, batches.depth)
    seen = set()
    for step in range(8):
        batch = own.training_at(positions_at(step, CONFIG.batch_size), np.arange(SAMPLES))
        rows = [int(token.removeprefix("sample-")) for token in batch.tokens]
        for row, signs, found in zip(rows, signs_of(batch, own.held_out(np.array(rows))), batch.lidar_bev()):
            flip = "".join(axis for axis, sign in zip("xy", signs) if sign < 0) or "none"
            assert torch.equal(found, torch.from_numpy(bev.dense(row, flip)))
            seen.add(flip)
    assert seen == set(FLIPS)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("parts", [2, 4])
def test_a_step_is_the_same_however_it_is_shared(batches, shared, parts):
    config = changed(CONFIG, mask_shared=shared)
    made = geomim_batches(config, batches.masked.dataroot, batches.index, batches.bev, batches.depth)
    samples, positions = np.arange(SAMPLES), positions_at(5, CONFIG.batch_size)
    whole = made.training_at(positions, samples)
    pieces = [made.training_at(share(positions, part, parts), samples) for part in range(parts)]
    assert [token for piece in pieces for token in piece.tokens] == whole.tokens
    assert whole.tokens == [f"sample-{sample_at(position, samples, config.seed)}" for position in positions]
    for tensors in zip(fields(whole), *map(fields, pieces)):
        assert torch.equal(tensors[0], torch.cat(tensors[1:]))
    if shared:
        assert whole.groups.shape == (1, 2, 3)
        assert all(torch.equal(piece.groups, whole.groups) for piece in pieces)
    else:
        assert torch.equal(torch.cat([piece.groups for piece in pieces]), whole.groups)
        assert len(whole.groups.unique(dim=0)) > 6


def fields(batch: GeoMIMBatch) -> list[torch.Tensor]:
    """What a batch has of each sample."""
    return [batch.images, *vars(batch.cameras).values(), batch.depth_map, batch.lidar_bev()]


def test_steps_and_epochs_differ(batches):
    """The same sample at another position is augmented in another way, and another step has other masks."""
    one = np.array([2])
    first, again, other = (batches.training_at(range(p, p + 1), one) for p in (0, 0, 4))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.groups, again.groups)
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.cameras.post_homography, other.cameras.post_homography)
    firsts = (CONFIG.batch_size * step for step in range(6))
    masks = torch.cat([batches.training_at(range(first, first + 1), one).groups for first in firsts])
    assert len(masks.unique(dim=0)) > 3


def test_loaders_make_what_one_makes(batches):
    samples = np.arange(SAMPLES)

    def load(step):
        return batches.training_at(positions_at(step, CONFIG.batch_size), samples)

    with Prefetcher(load, range(8), workers=4, ahead=5) as ahead:
        for step, batch in enumerate(ahead):
            for found, wanted in zip(fields(batch), fields(load(step))):
                assert torch.equal(found, wanted)


def test_a_batch_holds_the_teachers_maps(batches):
    made = batches.held_out(np.array([3, 1]))
    assert made.images.shape == (2, 6, 64, 96, 3)
    assert torch.equal(made.lidar_bev(), torch.stack([torch.from_numpy(bev_of(POINTS[s])).half() for s in (3, 1)]))
    assert len(made.bev_index) == int((made.lidar_bev() != 0).any(1).sum())  # the active cells travel, no others


def test_cameras_reach_the_lidar_through_both_poses(batches):
    index = batches.index
    point = np.array([1.0, 2.0, 3.0, 1.0])
    for camera in range(6):
        in_global = index.camera_ego_to_global[2, camera] @ index.camera_to_ego[2, camera] @ point
        in_lidar = np.linalg.inv(index.lidar_ego_to_global[2] @ index.lidar_to_ego[2]) @ in_global
        np.testing.assert_allclose(camera_to_key_lidar(index, 2)[camera] @ point, in_lidar, atol=1e-9)
