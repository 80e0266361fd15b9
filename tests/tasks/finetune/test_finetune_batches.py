import numpy as np
import torch

from models.geometry import inverse
from storage.depth import DepthReader
from tasks.batches.lidar import sample_boxes
from tasks.finetune.batches import Batches
from tasks.finetune.picture import NEAR, _in_front


def batches(world) -> Batches:
    depth = DepthReader(world.inputs["depth"].path / "depth.zarr")
    return Batches(world.config, world.index, world.inputs.dataroot, depth)


def project(camera_to_frame, intrinsics, post, points):
    """Pixels of the network's input of points (n, 3), and their depths."""
    local = np.c_[points, np.ones(len(points))] @ np.linalg.inv(camera_to_frame).T
    u, v = (local[:, :2] / local[:, 2:]).T
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    stored = np.stack([fx * u + cx, fy * v + cy, local[:, 2], np.ones(len(u))])
    return (post @ stored)[:2].T, local[:, 2]


def test_boxes_stay_where_the_cameras_see_them(world):
    """Augmented boxes through the batch's matrices meet the plain boxes through the whole chain of poses."""
    index, batch = world.index, batches(world).training(5, world.index.samples("train"))
    seen = 0
    for i, sample in enumerate(batch.samples):
        truth = sample_boxes(index, sample, world.config.min_lidar_points)
        lidar_to_global = index.lidar_ego_to_global[sample] @ index.lidar_to_ego[sample]
        centers = (np.c_[truth.centers, np.ones(len(truth))] @ lidar_to_global.T)[:, :3]
        for camera in range(len(index.cameras)):
            camera_to_global = index.camera_ego_to_global[sample, camera] @ index.camera_to_ego[sample, camera]
            matrices = (
                m[i, 0, camera].double().numpy() for m in (batch.cameras.intrinsics, batch.cameras.post_homography)
            )
            intrinsics, post = matrices
            expected, depth = project(camera_to_global, index.intrinsics[sample, camera], post, centers)
            camera_to_bev = batch.cameras.camera_to_bev(0)[i, camera].double().numpy()
            pixels, _ = project(camera_to_bev, intrinsics, post, batch.boxes[i].centers)
            ahead = depth > 1
            seen += ahead.sum()
            np.testing.assert_allclose(pixels[ahead], expected[ahead], atol=0.05)
        assert (batch.boxes[i].labels == truth.labels).all()
    assert seen > 20


def test_headings_and_velocities_turn_with_the_scene(world):
    """A point half a length before the centre, and one second ahead, move like any other point."""
    index, batch = world.index, batches(world).training(2, world.index.samples("train"))
    for i, sample in enumerate(batch.samples):
        truth = sample_boxes(index, sample, world.config.min_lidar_points).moved(index.lidar_to_ego[sample])
        key = index.lidar_ego_to_global[sample]
        to_ego = inverse(key) @ index.camera_ego_to_global[sample, 0] @ index.camera_to_ego[sample, 0]
        scene = batch.cameras.camera_to_bev(0)[i, 0].double().numpy() @ np.linalg.inv(to_ego)
        made = batch.boxes[i]
        for ahead, made_ahead in (
            (heading(truth) * truth.sizes[:, :1] / 2, heading(made) * made.sizes[:, :1] / 2),
            (truth.velocities, made.velocities),
        ):
            np.testing.assert_allclose(made_ahead, ahead @ scene[:2, :2].T, atol=1e-4)


def heading(boxes):
    return np.stack([np.cos(boxes.yaws), np.sin(boxes.yaws)], -1)


def test_depth_labels_are_the_nearest_point_of_each_cell(world):
    made = batches(world)
    batch = made.training(1, world.index.samples("train"))
    low, high, step = world.config.depth_bins
    points = made.depth.read(int(batch.samples[0]))
    u, v, depth = points.camera(2, sweeps=0)
    expected = np.full(batch.depth_labels.shape[-2:], np.inf)
    post = batch.cameras.post_homography[0, 0, 2].double().numpy()
    for pixel in zip(u, v, depth):
        x, y, _, _ = post @ [*pixel, 1]
        row, column = int(np.floor(y / 16)), int(np.floor(x / 16))
        if 0 <= row < expected.shape[0] and 0 <= column < expected.shape[1]:
            expected[row, column] = min(expected[row, column], pixel[2])
    bins = np.where((expected >= low) & (expected < high), np.floor((expected - low) / step), -1)
    agree = bins == batch.depth_labels[0, 2].numpy()
    assert agree.mean() > 0.97  # float32 matrices move a point on a cell's border
    assert (batch.depth_labels >= 0).float().mean() > 0.2


def test_a_step_is_a_function_of_its_number(world):
    one, again = (batches(world).training(3, world.index.samples("train")) for _ in range(2))
    other = batches(world).training(4, world.index.samples("train"))
    assert torch.equal(one.images, again.images)
    assert torch.equal(one.cameras.camera_to_bev(0), again.cameras.camera_to_bev(0))
    assert not torch.equal(one.cameras.post_homography, other.cameras.post_homography)


def test_evaluation_batches_are_not_augmented(world):
    batch = batches(world).evaluation(world.index.samples("val"))
    post = batch.cameras.post_homography
    assert torch.equal(post[..., :2, :2], post[..., :1, :1] * torch.eye(2))
    assert len(batch.boxes) == len(world.index.samples("val"))


def test_an_edge_is_cut_in_front_of_the_camera():
    cut = _in_front(np.array([0.0, 0.0, -1.0]), np.array([2.0, 0.0, 1.0]))
    np.testing.assert_allclose(cut, [[1 + NEAR, 0, NEAR], [2, 0, 1]])
    assert _in_front(np.array([0.0, 0, -1]), np.array([0.0, 0, -2])) is None
