"""The image-plane target against a direct projection, point by point, and what learns it."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.boxes import Boxes
from models.focal_loss import heatmap_loss
from models.geometry import rotation_z, transform
from models.perspective import FINER, LEAST_SPREAD, NEAREST, SPREAD, PerspectiveDetector, seen_centers
from small_swin import small_swin

SIZE, STRIDE, CLASSES = (64, 96), 8, 3
LENS = np.array([[80.0, 0, 50], [0, 80, 30], [0, 0, 1]])
FORWARD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # a camera's x right, y down, z forward -> x forward, z up


def camera(yaw: float) -> np.ndarray:
    return transform(rotation_z(yaw) @ FORWARD, np.array([1.0, 0.2, 1.5]))


def made_up(random: np.random.Generator, count: int) -> Boxes:
    centers = np.c_[random.uniform(-25, 25, (count, 2)), random.uniform(0, 2, count)]
    labels = random.integers(0, CLASSES, count)
    return Boxes(centers, random.uniform(0.3, 6, (count, 3)), np.zeros(count), np.zeros((count, 2)), labels)


def directly(boxes: Boxes, to_frame: np.ndarray, post: np.ndarray) -> np.ndarray:
    rows, columns = SIZE[0] // STRIDE, SIZE[1] // STRIDE
    out = np.zeros((CLASSES, rows, columns))
    for center, size, label in zip(boxes.centers, boxes.sizes, boxes.labels):
        x, y, z, _ = np.linalg.inv(to_frame) @ [*center, 1]
        if z <= NEAREST:
            continue
        u, v, _ = LENS @ [x / z, y / z, 1]
        u, v, _, _ = post @ [u, v, z, 1]
        row, column = int(np.floor(v / STRIDE)), int(np.floor(u / STRIDE))
        if not (0 <= row < rows and 0 <= column < columns):
            continue
        factor = np.linalg.norm(post[:2, 0])
        tall = max(80 * factor * size[2] / z / STRIDE / SPREAD, LEAST_SPREAD)
        wide = max(80 * factor * np.sqrt((size[0] ** 2 + size[1] ** 2) / 2) / z / STRIDE / SPREAD, LEAST_SPREAD)
        for i, j in np.ndindex(rows, columns):
            height = np.exp(-((i - row) ** 2) / (2 * tall**2) - (j - column) ** 2 / (2 * wide**2))
            out[label, i, j] = max(out[label, i, j], height)
    return out


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 12), st.floats(0.5, 1.5), st.booleans())
def test_bumps_stand_where_a_direct_projection_has_them(seed, count, factor, flip):
    random = np.random.default_rng(seed)
    boxes, cameras = made_up(random, count), np.stack([camera(yaw) for yaw in (0.0, 1.7)])
    post = np.diag([-factor if flip else factor, factor, 1.0, 1.0])
    post[:2, 3] = (SIZE[1] if flip else 0.0), -3.0
    made = seen_centers(boxes, cameras, np.stack([LENS] * 2), np.stack([post] * 2), SIZE, STRIDE, CLASSES)
    for seen, to_frame in zip(made, cameras):
        np.testing.assert_allclose(seen, directly(boxes, to_frame, post), atol=1e-6)


def test_what_stands_behind_or_beside_the_camera_is_not_there():
    centers = np.array([[-10.0, 0, 1], [0.5, 30, 1], [1.5, 0.2, 1.5]])
    boxes = Boxes(centers, np.ones((3, 3)), np.zeros(3), np.zeros((3, 2)), np.zeros(3, int))
    assert not seen_centers(boxes, camera(0.0)[None], LENS[None], np.eye(4)[None], SIZE, STRIDE, CLASSES).any()


def test_a_detector_in_the_image_plane_learns_two_images_by_heart():
    torch.manual_seed(0)
    detector = PerspectiveDetector(small_swin(), CLASSES, 8)
    images, target = torch.randn(2, 3, *SIZE), torch.zeros(2, CLASSES, SIZE[0] // STRIDE, SIZE[1] // STRIDE)
    target[0, 1, 2, 3] = target[1, 0, 5, 9] = target[1, 2, 1, 1] = 1
    optimiser, losses = torch.optim.Adam(detector.parameters(), 5e-3), []
    for _ in range(80):
        logits = detector(images)
        assert logits.shape == target.shape
        losses.append(heatmap_loss(logits, target))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert float(losses[-1].detach()) < 0.1 * float(losses[0].detach())
    found = detector(images).sigmoid()
    assert found[0].argmax() == target[0].argmax()
    assert detector.backbone.strides[2] == STRIDE * FINER
