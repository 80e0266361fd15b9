import numpy as np
import torch

from batches.detector import Batches
from batches.lidar import sample_boxes
from models.geometry import inverse
from pictures.cameras import NEAR, _in_front
from storage.depth import DepthReader


def batches(world, **fields) -> Batches:
    depth = DepthReader(world.inputs["depth"].path / "depth.zarr")
    return Batches(world.configured(**fields), world.index, world.inputs.dataroot, depth)


def training(made, step):
    """The batch of a step of two samples."""
    return made.training_at(range(2 * step, 2 * step + 2), made.index.samples("train"))


def project(camera_to_frame, intrinsics, post, points):
    """Pixels of the network's input of points (n, 3), and their depths."""
    local = np.c_[points, np.ones(len(points))] @ np.linalg.inv(camera_to_frame).T
    u, v = (local[:, :2] / local[:, 2:]).T
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    stored = np.stack([fx * u + cx, fy * v + cy, local[:, 2], np.ones(len(u))])
    return (post @ stored)[:2].T, local[:, 2]


def test_boxes_stay_where_the_cameras_see_them(world):
    """Augmented boxes through the batch's matrices meet the plain boxes through the whole chain of poses."""
    index, batch = world.index, training(batches(world), 5)
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
    index, batch = world.index, training(batches(world), 2)
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
    batch = training(made, 1)
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
    one, again = (training(batches(world), 3) for _ in range(2))
    other = training(batches(world), 4)
    assert torch.equal(one.images, again.images)
    assert torch.equal(one.cameras.camera_to_bev(0), again.cameras.camera_to_bev(0))
    assert not torch.equal(one.cameras.post_homography, other.cameras.post_homography)


def test_evaluation_batches_are_not_augmented(world):
    batch = batches(world).evaluation(world.index.samples("val"))
    post = batch.cameras.post_homography
    assert torch.equal(post[..., :2, :2], post[..., :1, :1] * torch.eye(2))
    assert len(batch.boxes) == len(world.index.samples("val"))


def test_earlier_frames_come_with_the_key_frames_augmentation(world):
    """Each frame's images are those that a batch of that frame alone would have with the key frame's draws."""
    made = batches(world, view={"frames": 2})
    batch = training(made, 3)
    assert batch.images.shape[:3] == (2, 2, 6)
    post = batch.cameras.post_homography
    assert torch.equal(post[:, 0], post[:, 1])
    assert torch.equal(training(batches(world), 3).images[:, 0], batch.images[:, 0])  # one frame more changes nothing
    for i, sample in enumerate(batch.samples):
        previous = made.index.previous[sample]
        alike = torch.equal(batch.images[i, 0], batch.images[i, 1])
        assert alike == (previous < 0)
        poses = batch.cameras.camera_to_frame[i]
        assert torch.equal(poses[0], poses[1]) == (previous < 0)


def test_a_landmark_is_where_both_frames_see_it(world):
    """A point that stands still, through the matrices of either frame, is one point of the key frame's map."""
    made = batches(world, view={"frames": 2}, min_lidar_points=0)
    sample = next(s for s in made.index.samples("train") if made.index.previous[s] >= 0)
    index, batch = made.index, made.evaluation([sample])
    previous = index.previous[sample]
    landmark = np.array([*index.lidar_ego_to_global[sample][:2, 3] + [12.0, 5.0], 1.0, 1.0])  # global
    places = []
    for number, frame in enumerate((sample, previous)):
        for camera in range(6):
            camera_to_global = index.camera_ego_to_global[frame, camera] @ index.camera_to_ego[frame, camera]
            seen = np.linalg.inv(camera_to_global) @ landmark
            places.append(batch.cameras.camera_to_bev(number)[0, camera].double().numpy() @ seen)
    expected = np.linalg.inv(index.lidar_ego_to_global[sample]) @ landmark
    np.testing.assert_allclose(places, [expected] * 12, atol=0.01)
    moved = index.lidar_ego_to_global[sample][:3, 3] - index.lidar_ego_to_global[previous][:3, 3]
    assert np.linalg.norm(moved) > 0.5  # or the test would say nothing


def test_the_previous_frame_waits_for_its_step(world):
    made = batches(world, view={"frames": 2, "previous_from": 2})
    assert [training(made, step).with_previous for step in (0, 1, 2, 3)] == [False, False, True, True]
    assert made.evaluation([0]).with_previous


def test_released_detectors_see_blue_first(world):
    rgb, bgr = (training(batches(world, view={"channels": name}), 3) for name in ("rgb", "bgr"))
    assert torch.equal(rgb.images.flip(-1), bgr.images)
    assert not torch.equal(rgb.images, bgr.images)


def test_the_key_ego_of_released_detectors_is_a_cameras(world):
    index, sample = world.index, 1
    made = batches(world, view={"key_ego": "camera"}).evaluation([sample])
    cameras = made.cameras.camera_to_frame[0, 0].double().numpy()
    np.testing.assert_allclose(cameras[2], index.camera_to_ego[sample, 2], atol=1e-5)  # FRONT_LEFT at its own time
    expected = sample_boxes(index, sample, world.config.min_lidar_points).moved(
        inverse(index.camera_ego_to_global[sample, 0]) @ index.lidar_ego_to_global[sample] @ index.lidar_to_ego[sample]
    )
    np.testing.assert_allclose(made.boxes[0].centers, expected.centers, atol=1e-6)


def test_an_edge_is_cut_in_front_of_the_camera():
    cut = _in_front(np.array([0.0, 0.0, -1.0]), np.array([2.0, 0.0, 1.0]))
    np.testing.assert_allclose(cut, [[1 + NEAR, 0, NEAR], [2, 0, 1]])
    assert _in_front(np.array([0.0, 0, -1]), np.array([0.0, 0, -2])) is None
