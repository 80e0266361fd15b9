"""Projection against a point-by-point loop, and the devkit on the real key frame."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.geometry import inverse, rotation_z, transform
from models.names import CAMERAS, LIDAR
from tasks.depth.project import Rig, project_cloud, project_sample

REAL = Path(__file__).resolve().parents[4] / "shared" / "real-keyframe"


def project_by_loop(points, to_camera, rig, min_depth, margin):
    """One point at a time, in float64."""
    out = []
    for matrix, intrinsics, (width, height) in zip(to_camera, rig.intrinsics, rig.image_size, strict=True):
        found = []
        for row, point in enumerate(points[:, :3].astype(np.float64)):
            x, y, z, _ = matrix @ [*point, 1.0]
            if z > min_depth:
                u, v, _ = intrinsics @ [x, y, z] / z
                if margin < u < width - margin and margin < v < height - margin:
                    found.append((row, u, v, z))
        out.append(np.array(found).reshape(-1, 4))
    return out


def random_rig(rng: np.random.Generator, cameras: int = 3) -> tuple[np.ndarray, Rig]:
    # A camera looks along z; the LiDAR's z is up.
    forward = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    to_camera = transform(forward @ rotation_z(rng.uniform(0, 6.3, cameras)), rng.normal(size=(cameras, 3)))
    intrinsics = np.array([[100.0, 0, 80], [0, 100, 45], [0, 0, 1]]) * rng.uniform(0.5, 1.5, (cameras, 1, 1))
    intrinsics[:, 2, 2] = 1
    return to_camera, Rig(intrinsics, np.tile([160, 90], (cameras, 1)))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 200), margin=st.sampled_from([0.0, 1.0, 10.0]))
def test_cloud_is_projected_as_in_the_loop(seed, count, margin):
    rng = np.random.default_rng(seed)
    to_camera, rig = random_rig(rng)
    points = rng.normal(scale=(20, 20, 3, 1, 1), size=(count, 5)).astype(np.float32)
    expected = project_by_loop(points, to_camera, rig, 1.0, margin)
    for (which, pixels, depth), reference in zip(
        project_cloud(points, to_camera, rig, 1.0, margin), expected, strict=True
    ):
        assert which.tolist() == reference[:, 0].astype(int).tolist()
        np.testing.assert_allclose(np.c_[pixels, depth], reference[:, 1:], rtol=1e-9, atol=1e-9)


def test_a_sample_keeps_cameras_sweeps_and_scan_order():
    rng = np.random.default_rng(1)
    to_camera, rig = random_rig(rng)
    to_camera = np.stack([to_camera, to_camera @ transform(rotation_z(0.1), np.array([1.0, 0, 0]))])  # (2, C, 4, 4)
    clouds = [rng.normal(scale=(15, 15, 2, 1, 1), size=(300, 5)).astype(np.float32) for _ in range(2)]
    # On the car in the sweep's own frame, at the height where a camera sees it: dropped from the sweep alone.
    clouds[0][:50, :2] = clouds[1][:50, :2] = rng.uniform(-0.99, 0.99, (50, 2))
    found = project_sample(clouds, to_camera, rig, 0.1, 1.0)
    car = (np.abs(clouds[1][:, :2]) < 1).all(1)
    assert car.sum() >= 50
    expected = [
        project_by_loop(clouds[0], to_camera[0], rig, 0.1, 1.0),
        project_by_loop(clouds[1][~car], to_camera[1], rig, 0.1, 1.0),
    ]
    for c in range(3):
        rows = slice(*found.offsets[c : c + 2])
        reference = np.concatenate([expected[0][c], expected[1][c]])[:, 1:]
        np.testing.assert_allclose(np.stack([found.u[rows], found.v[rows], found.depth[rows]], 1), reference, rtol=1e-6)
        assert found.sweep[rows].tolist() == [0] * len(expected[0][c]) + [1] * len(expected[1][c])
    assert found.u.dtype == found.v.dtype == found.depth.dtype == np.float32
    assert found.sweep.dtype == np.uint8
    assert (found.sweep == 0).sum() > 20


def test_an_empty_cloud():
    to_camera, rig = random_rig(np.random.default_rng(0))
    found = project_sample([np.zeros((0, 5), np.float32)], to_camera[None], rig, 1.0, 1.0)
    assert found.offsets.tolist() == [0, 0, 0, 0]
    assert len(found.u) == 0


@pytest.mark.skipif(not REAL.is_dir(), reason="the real key frame is not beside the repository")
def test_the_devkit_itself_on_real_data(monkeypatch):
    """Once as shipped; once with its point cloud in float64, which agrees to rounding."""
    from nuscenes.nuscenes import NuScenes
    from nuscenes.utils import data_classes

    nusc = NuScenes("v1.0-mini", str(REAL), verbose=False)
    data = nusc.sample[0]["data"]
    points = np.fromfile(nusc.get_sample_data_path(data[LIDAR]), np.float32).reshape(-1, 5)

    def to_global(token: str) -> np.ndarray:
        record = nusc.get("sample_data", token)
        calibration = nusc.get("calibrated_sensor", record["calibrated_sensor_token"])
        pose = nusc.get("ego_pose", record["ego_pose_token"])
        return transform(pose["rotation"], pose["translation"]) @ transform(
            calibration["rotation"], calibration["translation"]
        )

    def intrinsics(token: str) -> list:
        calibration = nusc.get("sample_data", token)["calibrated_sensor_token"]
        return nusc.get("calibrated_sensor", calibration)["camera_intrinsic"]

    to_camera = np.stack([inverse(to_global(data[c])) @ to_global(data[LIDAR]) for c in CAMERAS])
    rig = Rig(np.array([intrinsics(data[c]) for c in CAMERAS]), np.tile([1600, 900], (6, 1)))
    found = project_cloud(points, to_camera, rig, 1.0, 1.0)
    from_file = data_classes.LidarPointCloud.from_file.__func__

    def doubled(cls, path):
        cloud = from_file(cls, path)
        cloud.points = cloud.points.astype(np.float64)
        return cloud

    for exact in (False, True):
        if exact:
            monkeypatch.setattr(data_classes.LidarPointCloud, "from_file", classmethod(doubled))
        for camera, (_, pixels, depth) in zip(CAMERAS, found, strict=True):
            uv, devkit_depth, _ = nusc.explorer.map_pointcloud_to_image(data[LIDAR], data[camera])
            assert len(pixels) == uv.shape[1]
            np.testing.assert_allclose(pixels, uv[:2].T, atol=1e-6 if exact else 0.1)
            np.testing.assert_allclose(depth, devkit_depth, atol=1e-9 if exact else 3e-4)
