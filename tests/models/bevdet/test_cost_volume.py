"""Stereo in time against pixels gone through one by one, and against a wall that stands where it should be found."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from models.bevdet.cost_volume import cost_volume, rays
from models.cameras import Cameras
from models.geometry import rotation_z
from small_detectors import rig

SIZE, STRIDE = (16, 32), 4


def bilinear(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """(C,) of an image (C, H, W) at a place between its pixels' centres; zero outside."""
    out = np.zeros(len(image))
    for column in (math.floor(x), math.floor(x) + 1):
        for row in (math.floor(y), math.floor(y) + 1):
            if 0 <= column < image.shape[2] and 0 <= row < image.shape[1]:
                out += (1 - abs(x - column)) * (1 - abs(y - row)) * image[:, row, column]
    return out


def slow(current, earlier, to_earlier, lenses, posts, depths, bias):
    """One camera, in float64; also how many points were not in the earlier image, and how many behind it."""
    _, height, width = current.shape
    costs, outside, behind = np.zeros((len(depths), height, width)), 0, 0
    for bin, row, column in np.ndindex(costs.shape):
        u, v = column * (SIZE[1] - 1) / (width - 1), row * (SIZE[0] - 1) / (height - 1)
        x, y = np.linalg.solve(posts[0], [u, v, 0, 1])[:2]
        point = np.linalg.solve(lenses[0], depths[bin] * np.array([x, y, 1.0]))
        seen = (to_earlier @ [*point, 1])[:3]
        pixel = lenses[1] @ seen
        warped, missed = np.zeros(len(current)), True
        if pixel[2] >= 1e-3:
            u, v = (posts[1] @ [*(pixel[:2] / pixel[2]), 0, 1])[:2]
            x, y = u / (SIZE[1] - 1) * (width - 1), v / (SIZE[0] - 1) * (height - 1)
            warped = bilinear(earlier, x, y)
            missed = not (-1 < x < width and -1 < y < height)
        outside += missed
        behind += pixel[2] < 1e-3
        costs[bin, row, column] = np.abs(warped - current[:, row, column]).sum() + bias * missed
    likely = np.exp(costs.min(0) - costs)
    return likely / likely.sum(0), outside, behind


def lens(focal: float) -> np.ndarray:
    return np.array([[focal, 0, 15.0], [0, focal, 8.0], [0, 0, 1]])


def post(scale: float, angle: float, shift: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:2, :2] = scale * rotation_z(angle)[:2, :2]
    matrix[:2, 3] = shift
    return matrix


def two_frames(to_earlier, lenses, posts) -> Cameras:
    """One camera that moved from where it was a frame earlier."""

    def tensor(*matrices):
        return torch.tensor(np.stack(matrices))[None, :, None].float()

    eye, poses = torch.eye(4)[None], tensor(to_earlier, np.eye(4))
    return Cameras(tensor(*lenses), tensor(*posts), poses, poses[:, 0], eye)


def fast(current, earlier, to_earlier, lenses, posts, depths, bias):
    seen = rays(two_frames(to_earlier, lenses, posts), 0, SIZE, STRIDE)
    features = (torch.tensor(feature)[None].float() for feature in (current, earlier))
    return cost_volume(*features, seen, torch.tensor(depths).float(), bias, STRIDE)[0].numpy()


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(-1.5, 1.5),
    st.floats(-4, 4),
    st.floats(-3, 3),
    st.floats(0.8, 1.3),
    st.sampled_from([0.0, 5.0]),
)
def test_pixels_one_by_one(seed, yaw, ahead, aside, scale, bias):
    random = np.random.default_rng(seed)
    features = random.normal(size=(2, 3, SIZE[0] // STRIDE, SIZE[1] // STRIDE))
    to_earlier = np.eye(4)
    to_earlier[:3, :3] = rotation_z(yaw)[[1, 2, 0]][:, [1, 2, 0]]  # about the camera's second axis
    to_earlier[:3, 3] = aside, 0.1, ahead
    posts = post(scale, 0.05, 1.0), post(1 / scale, -0.1, -2.0)
    given = features[0], features[1], to_earlier, (lens(14.0), lens(15.0)), posts, np.array([1.0, 2, 4, 9]), bias
    wanted, _, _ = slow(*given)
    # Where a point is at the very border of the image, or of what is ahead, rounding decides.
    assert (np.abs(fast(*given) - wanted) < 2e-4).mean() > 0.95


def test_points_outside_and_behind_are_among_them():
    to_earlier = np.eye(4)
    to_earlier[2, 3] = -3.0  # three metres back: near points are behind
    features = np.random.default_rng(0).normal(size=(2, 3, 4, 8))
    given = features[0], features[1], to_earlier, (lens(14.0),) * 2, (np.eye(4),) * 2, np.array([1.0, 4, 9]), 5.0
    wanted, outside, behind = slow(*given)
    assert 0 < behind < outside < wanted.size
    np.testing.assert_allclose(fast(*given), wanted, atol=1e-5)


@pytest.mark.parametrize("place", range(1, 5))
def test_a_wall_is_found_where_it_stands(place):
    """Features are a smooth pattern on a wall across the view; a metre to the side it looks shifted by its depth."""
    depths = np.array([2.0, 3, 4, 6, 8, 12, 20, 40])
    height, width = SIZE[0] // STRIDE, SIZE[1] // STRIDE
    u, v = np.meshgrid(np.linspace(0, SIZE[1] - 1, width), np.linspace(0, SIZE[0] - 1, height))

    def picture(aside: float) -> np.ndarray:
        x, y = (u - 15) / 14 * depths[place] + aside, (v - 8) / 14 * depths[place]
        waves = [0.35 * x / depths[place] * 5, 0.2 * (x + y), 0.5 * x + y / 3]
        return np.stack([f(wave) for wave in waves for f in (np.sin, np.cos)])

    to_earlier = np.eye(4)
    to_earlier[0, 3] = 1.0  # the earlier camera stood a metre to the left
    found = fast(picture(0), picture(-1.0), to_earlier, (lens(14.0),) * 2, (np.eye(4),) * 2, depths, 5.0)
    assert (found.argmax(0)[:, :-3] == place).mean() > 0.9  # what is at the right edge lay outside


def test_nothing_as_large_as_all_warped_features():
    """M x C x D x h x w never exists: the largest tensor is the result or one bin's features."""
    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            largest = max([largest, *(t.numel() for t in torch.utils._pytree.tree_leaves(out) if torch.is_tensor(t))])
            return out

    features, depths = torch.randn(2, 1, 24, 4, 8), torch.arange(1.0, 31)
    seen = rays(rig(1, 2, 1), 0, SIZE, STRIDE)
    with Largest():
        out = cost_volume(features[0], features[1].requires_grad_(), seen, depths, 5.0, STRIDE)
    assert not out.requires_grad
    assert largest == max(out.numel(), features[0].numel())


@pytest.mark.parametrize("wrong", ["earlier", "seen", "depths"])
def test_what_would_broadcast_is_refused(wrong):
    features, depths = torch.randn(2, 2, 3, 4, 8), torch.arange(1.0, 5)
    seen = rays(rig(1, 2, 2), 0, SIZE, STRIDE)
    inputs = {
        "current": features[0],
        "earlier": features[1],
        "seen": seen,
        "depths": depths,
        "bias": 5.0,
        "stride": STRIDE,
    }
    cost_volume(**inputs)
    one = {"earlier": features[1, :1], "seen": type(seen)(*(part[:1] for part in seen)), "depths": depths[:, None]}
    with pytest.raises(ValueError, match=f"^{wrong} has the shape"):
        cost_volume(**inputs | {wrong: one[wrong]})
