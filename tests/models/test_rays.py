"""Rays against cameras gone through pixel by pixel; and geometry that no precision and no compiler changes."""

import shutil
from operator import attrgetter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._pytree import tree_leaves

from models.bevdet.alignment import aligned, sampling_grid
from models.bevdet.cost_volume import places, rays
from models.cameras import Cameras
from models.depth_bins import DepthBins
from models.geometry import rotation_z
from models.geomim.decoder import CameraGate, DecoderSpec
from models.geomim.model import GeoMIM, GeoMIMSpec
from models.geomim.view_transform import ViewTransform, ViewTransformSpec
from models.lift_splat import BevGrid
from models.rays import feature_pixels, frustum, inverse, lens, pixel_rays
from one_frame import one_frame
from small_detectors import SIZE, VARIANTS, rig, small_detector
from small_swin import small_swin
from what_kernels_get import Geometry

MATRICES = attrgetter("intrinsics", "post_homography", "camera_to_frame")
EDGES = torch.arange(1.0, 60.0, 3.0, dtype=torch.float64)


def tiny_geomim() -> GeoMIM:
    backbone = small_swin()
    grid = BevGrid((-8.0, 8.0), (-8.0, 8.0), (-10.0, 10.0), 0.5)
    view = ViewTransformSpec(DepthBins(1, 11, 1), grid, context=6)
    return GeoMIM(backbone, GeoMIMSpec(DecoderSpec(16, 2, 4), view, fusion_heads=2, target_channels=5))


def test_points_return_to_their_pixels():
    """A frustum point, taken from the BEV frame through camera and augmentation, lies at its own pixel and depth."""
    generator = np.random.default_rng(0)
    intrinsics = np.array([[300.0, 0, 170], [0, 310, 95], [0, 0, 1]])
    post = np.array([[-0.8, 0.1, 0, 300], [0.1, 0.8, 0, -20], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    camera_to_bev = np.eye(4)
    camera_to_bev[:3, :3], camera_to_bev[:3, 3] = rotation * np.sign(np.linalg.det(rotation)), (1.0, -2.0, 0.5)
    depths = torch.arange(1.0, 9.0, 2.0, dtype=torch.float64)
    made = frustum(depths, (64, 96), 16)
    assert made.shape == (4, 4, 6, 3)
    assert made[0, 0, 0].tolist() == [0, 0, 1]
    assert made[-1, -1, -1].tolist() == [95, 63, 7]
    rays = pixel_rays(
        lens(torch.from_numpy(intrinsics), torch.from_numpy(post)),
        torch.from_numpy(camera_to_bev),
        feature_pixels((64, 96), 16),
    )
    points = rays.at(depths)
    assert points.shape == made.shape
    for point, (u, v, depth) in zip(points.numpy().reshape(-1, 3), made.numpy().reshape(-1, 3)):
        camera = np.linalg.inv(camera_to_bev) @ [*point, 1]
        pixel = post @ [*(intrinsics @ camera[:3])[:2] / camera[2], camera[2], 1]
        np.testing.assert_allclose(pixel[:3], [u, v, depth], atol=1e-9)


def random_rig(seed: int, batch: int, views: int) -> Cameras:
    """Cameras anywhere, with images zoomed, mirrored, turned and shifted; nuScenes' focal lengths. In float32."""
    random = np.random.default_rng(seed)
    shape = batch, views
    focal, centre = random.uniform(500, 1300, (2, *shape)), random.uniform(100, 900, (2, *shape))
    intrinsics = np.zeros((*shape, 3, 3))
    intrinsics[..., 0, 0], intrinsics[..., 1, 1], intrinsics[..., 0, 2], intrinsics[..., 1, 2] = *focal, *centre
    intrinsics[..., 2, 2] = 1
    post = np.tile(np.eye(4), (*shape, 1, 1))
    mirror = np.where(random.random(shape) < 0.5, -1.0, 1.0)
    post[..., :2, :2] = rotation_z(random.uniform(-0.1, 0.1, shape))[..., :2, :2]
    post[..., :2, 0] *= (mirror * random.uniform(0.3, 0.6, shape))[..., None]
    post[..., :2, 1] *= random.uniform(0.3, 0.6, shape)[..., None]
    post[..., :2, 3] = random.uniform(-300, 300, (*shape, 2))
    poses = np.tile(np.eye(4), (2, *shape, 1, 1))
    rotations = np.linalg.qr(random.normal(size=(2, *shape, 3, 3)))[0]
    poses[..., :3, :3] = rotations * np.sign(np.linalg.det(rotations))[..., None, None]
    poses[..., :3, 3] = random.uniform(-2, 2, (2, *shape, 3))
    return one_frame(*(torch.tensor(matrix).float() for matrix in (intrinsics, post, *poses)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(32, 64), (48, 96)]), st.booleans())
def test_cells_one_by_one(seed, size, truncate):
    """Every point through its camera, one at a time, with a linear solver and no ray."""
    cameras, bins = random_rig(seed, 1, 2), DepthBins(1.0, 40.0, 6.0)
    grid = BevGrid((-20, 20), (-15, 15), (-4, 4), 0.5)
    transform = ViewTransform(8, ViewTransformSpec(bins, grid, context=4, truncate=truncate))
    found = transform.cells(cameras, size, 16)
    pixels = frustum(bins.edges(), size, 16).numpy()
    for n, d, row, column in np.ndindex(found.shape[1:]):
        k, post, pose = (matrices[0, 0, n].double().numpy() for matrices in MATRICES(cameras))
        u, v, depth = pixels[d, row, column]
        stored = np.linalg.solve(post, [u, v, depth, 1])
        point = pose @ [*np.linalg.solve(k, depth * np.array([*stored[:2], 1])), 1]
        place = (point[:3] - [-20, -15, -4]) / [0.5, 0.5, 8]
        if np.abs(place - place.round()).min() < 1e-6:
            continue  # on a border
        x, y, z = np.trunc(place) if truncate else np.floor(place)
        inside = 0 <= x < 80 and 0 <= y < 60 and z == 0
        assert found[0, n, d, row, column] == (x * 60 + y if inside else -1)


# --- the same bits in every precision ---------------------------------------------------------------------------------


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def under_autocast(function):
    def call(*args):
        with autocast():
            return function(*args)

    return call


def compiled(function):
    """`function` called from compiled code, under autocast."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch.compile needs a C++ compiler")

    def step(x, *args):
        return x.sin() * 2 + 1, function(*args)

    torch.compiler.reset()
    step = torch.compile(step)
    return under_autocast(lambda *args: step(torch.ones(8), *args)[1])


def assert_same_bits(one, other):
    ones, others = tree_leaves(one), tree_leaves(other)
    assert len(ones) == len(others)
    assert any(isinstance(value, torch.Tensor) and value.numel() > 1 for value in ones)
    for a, b in zip(ones, others):
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
        else:
            assert a == b


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_cells_and_points_under_autocast(seed):
    cameras, size = random_rig(seed, 2, 3), (256, 704)
    grid = BevGrid((-54, 54), (-54, 54), (-10, 10), 0.3)
    transform = ViewTransform(8, ViewTransformSpec(DepthBins(1.0, 60.0, 3.0), grid, context=4))

    def points():
        return pixel_rays(cameras.lens(), cameras.camera_to_bev(), feature_pixels(size, 16)).at(EDGES)

    assert_same_bits(transform.cells(cameras, size, 16), under_autocast(transform.cells)(cameras, size, 16))
    assert_same_bits(points(), under_autocast(points)())


@pytest.mark.parametrize("wrapped", [under_autocast, compiled])
def test_what_geomim_is_told(wrapped):
    cameras, size = random_rig(0, 1, 2), (64, 96)
    model = tiny_geomim()
    assert_same_bits(model.geometry(cameras, size), wrapped(model.geometry)(cameras, size))


@pytest.mark.parametrize("wrapped", [under_autocast, compiled])
@pytest.mark.parametrize("variant", ["bevdet", "bevdet4d", "aligned", "bevstereo"])
def test_what_a_detector_is_told(variant, wrapped):
    net = small_detector(**VARIANTS[variant])
    cameras = rig(2, net.input_frames, 3)
    assert_same_bits(net.geometry(cameras), wrapped(net.geometry)(cameras))


def test_places_of_stereo():
    """What the kernel that compares two images gets, of features in bfloat16 too."""
    net = small_detector(**VARIANTS["bevstereo"])
    (key, _) = net.geometry(rig(2, net.input_frames, 3))
    features = torch.randn(2, 6, 8, 16, 24, generator=torch.Generator().manual_seed(0))
    seen = []
    for compare, pair in ((net.compare, features), (under_autocast(net.compare), features.bfloat16())):
        with Geometry() as geometry:
            compare(*pair, key.earlier)
        seen.append(geometry)
    assert len(seen[0].places) == net.spec.depth_bins.count
    assert seen[0].places[0].dtype == torch.float32
    assert seen[0].same_as(seen[1])
    assert_same_bits(net.compare(*features, key.earlier), compiled(net.compare)(*features, key.earlier))


@pytest.mark.parametrize("variant", VARIANTS)
def test_matrices_cells_and_grids_under_autocast(variant):
    net = small_detector(**VARIANTS[variant])
    cameras = rig(2, net.input_frames, 3)
    for frame in range(net.spec.frames):
        for function in (cameras.camera_to_bev, cameras.vector, cameras.scene_vector):
            assert_same_bits(function(frame), under_autocast(function)(frame))
        assert_same_bits(net.cells(cameras, frame), under_autocast(net.cells)(cameras, frame))
        arguments = cameras, frame, net.spec.grid
        assert_same_bits(sampling_grid(*arguments), under_autocast(sampling_grid)(*arguments))
    for frame in range(net.input_frames - 1):
        assert_same_bits(cameras.to_earlier(frame), under_autocast(cameras.to_earlier)(frame))


def test_places_of_stereo_are_the_pixels_that_the_earlier_camera_sees():
    net = small_detector(**VARIANTS["bevstereo"])
    cameras = rig(1, net.input_frames, 2)
    found = places(rays(cameras, 0, SIZE, 4), torch.tensor(4.0), SIZE)
    pixels = feature_pixels(SIZE, 4).numpy()
    for n, row, column in np.ndindex(found.shape[:3]):
        (k, k0), (post, post0), (pose, pose0) = (m[0, :2, n].double().numpy() for m in MATRICES(cameras))
        stored = np.linalg.solve(post, [*pixels[row, column], 0, 1])
        point = pose @ [*np.linalg.solve(k, 4.0 * np.array([*stored[:2], 1])), 1]
        x, y, z = k0 @ np.linalg.solve(pose0, point)[:3]
        if z < 0.01:
            continue  # behind the earlier camera, or at its border
        u, v = (post0 @ [x / z, y / z, z, 1])[:2]
        wanted = [2 * u / (SIZE[1] - 1) - 1, 2 * v / (SIZE[0] - 1) - 1]
        np.testing.assert_allclose(found[n, row, column], wanted, rtol=1e-5, atol=1e-5)


def test_a_map_in_bfloat16_is_read_at_places_in_float32():
    """Map values that bfloat16 holds exactly, read halfway between cells that it cannot tell apart."""
    bev = torch.arange(128.0).expand(1, 1, 128, 128)
    x = torch.arange(127.0) + 0.5
    grid = torch.stack([2 * x / 127 - 1, torch.zeros(127)], -1)[None, None]
    with autocast():
        found = aligned(bev.bfloat16(), grid)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found[0, 0, 0].float(), x, atol=0, rtol=2**-8)  # one rounding, of the result


def test_the_numbers_of_a_camera_reach_the_norm_in_float32():
    """A focal length of 1266 px would be 1264 in bfloat16."""
    cameras, gate = random_rig(3, 1, 4), CameraGate(8).eval()
    vector = cameras.each(Tensor.double).vector()
    seen = []
    gate.bn.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    x = torch.randn(4, 2, 3, 8)
    gate(x, vector.flatten(0, 1))
    with autocast():
        gate(x.bfloat16(), vector.flatten(0, 1))
    assert_same_bits(*seen)
    assert seen[0][0].dtype == seen[0][1].dtype == torch.float32


def test_inverse():
    matrix = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(0))
    with autocast():
        product = inverse(matrix) @ matrix.double()
    torch.testing.assert_close(product, torch.eye(4, dtype=torch.float64).expand(5, 4, 4), atol=1e-9, rtol=0)
