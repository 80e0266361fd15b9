"""Clips of a simulated scene with camera frames between its key frames."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from batches.clips import Clips, ClipSpec, draw_targets, frames_of, joined, others_of
from batches.image_config import ImageConfig
from batches.rays import Box
from clip_world import clip_world, opened  # noqa: F401
from models import geometry
from storage.index import Index

SPEC = ClipSpec(3, 0.3, 32, 24, Box((-40.0, -40.0, -5.0), (40.0, 40.0, 3.0)))
CONFIG = SimpleNamespace(
    backbone=SimpleNamespace(strides=(4, 8, 16, 32)), image=ImageConfig(size=(64, 160), rot=(-2.0, 2.0)), seed=3
)


@pytest.fixture(scope="module")
def scene(clip_world):  # noqa: F811
    """(dataroot, index)."""
    return clip_world.dataroot, opened(clip_world["ingest"].path)


@pytest.fixture(scope="module")
def clips(scene):
    return Clips(CONFIG, SPEC, scene[1], scene[0])


def test_frames_have_their_own_poses(scene):
    """Every camera's way to the world through its frame's LiDAR is the one through its own ego."""
    _, index = scene
    frames = frames_of(index, 1, 4)
    assert frames.there.all()
    for t in range(4):
        for camera in range(6):
            if t == 0:
                ego, mounting = index.camera_ego_to_global[1, camera], index.camera_to_ego[1, camera]
                assert frames.paths[t, camera] == index.camera_path[1, camera]
            else:
                ego = index.frame_ego_to_global[1, camera, t - 1]
                mounting = index.frame_camera_to_ego[1, camera, t - 1]
                assert frames.paths[t, camera] == index.frame_path[1, camera, t - 1]
            np.testing.assert_allclose(
                frames.lidar_to_global[t] @ frames.camera_to_lidar[t, camera], ego @ mounting, atol=1e-9
            )
    np.testing.assert_array_equal(frames.lidar_to_global[0], index.lidar_to_global(1))
    # The LiDAR of an earlier frame is mounted as the key frame's on the ego at the first camera's time.
    ego_to_lidar = geometry.inverse(index.lidar_to_ego[1])
    np.testing.assert_allclose(frames.lidar_to_global[2] @ ego_to_lidar, index.frame_ego_to_global[1, 0, 1], atol=1e-9)
    steps = np.linalg.norm(np.diff(frames.lidar_to_global[:, :3, 3], axis=0), axis=1)
    assert (steps > 0.01).all()  # it drives


def test_a_point_is_where_the_frame_saw_it(clips):
    """Of every ray: its end in the world is a point of the key sweep, and its pixel shows it through the frame's own
    camera, whichever frame it is of."""
    sample = 1
    clip = clips.held_out([sample])
    index = clips.index
    frames = frames_of(index, sample, 3)
    world = geometry.apply(index.lidar_to_global(sample), clips._points(sample))
    assert clip.target.tolist() == [[0, 1]]
    posts = clip.cameras.post_homography[:, 0].numpy()
    for k, t in enumerate(clip.target[0].tolist()):
        measured = clip.depths[0, k] > 0
        assert measured.sum() > 50
        ends = clip.origins[0, k] + clip.directions[0, k] * clip.depths[0, k, :, None]
        ends = geometry.apply(frames.lidar_to_global[t], ends[measured].double().numpy())
        for end, (camera, row, column) in zip(ends, clip.pixels[0, k][measured].tolist()):
            assert np.abs(world - end).max(1).min() < 1e-4
            to_global = frames.lidar_to_global[t] @ frames.camera_to_lidar[t, camera]
            x, y, z = geometry.apply(geometry.inverse(to_global), end[None])[0]
            u, v, _ = frames.intrinsics[t, camera] @ [x / z, y / z, 1]
            place = (posts[t, camera] @ [u, v, z, 1])[:2]
            assert np.abs(place - [column + 0.5, row + 0.5]).max() <= 0.5 + 1e-3
            shown = clip.images[0, t, camera, row, column] / 255
            found = ((clip.pixels[0, k] == torch.tensor([camera, row, column])).all(1) & measured).nonzero()[0]
            torch.testing.assert_close(clip.colours[0, k, found[0]], shown.float())


def test_frames_move_to_each_other_by_the_egos_motion(clips):
    clip = clips.held_out([2])
    frames = frames_of(clips.index, 2, 3)
    point = np.array([[3.0, 7.0, -1.0]])
    for k, t in enumerate(clip.target[0].tolist()):
        for other, moved in zip(clip.others[0, k].tolist(), clip.to_other[0, k]):
            world = geometry.apply(frames.lidar_to_global[t], point)
            back = geometry.apply(geometry.inverse(frames.lidar_to_global[other]), world)
            np.testing.assert_allclose(geometry.apply(moved.numpy(), point), back, atol=1e-9)


def test_a_scenes_first_sample_has_no_other_frame(clips):
    """It is rendered alone; nothing stands in for what is not there."""
    clip = clips.held_out([0])
    assert clip.there[0].all(1).tolist() == [True, False, False]
    assert clip.there[0, clip.target[0]].any(1).tolist() == [True, False]
    assert not clip.others_there[0, 0].any()
    assert clip.cast[0, 0].any()
    assert not clip.cast[0, 1].any()
    assert (clip.images[0, 1:] == 0).all()
    assert all(torch.isfinite(part).all() for part in (clip.origins, clip.directions, clip.to_other))


def dropped(index: Index, camera: int, count: int) -> SimpleNamespace:
    """The index, as if a camera had only `count` earlier frames."""
    fields = ("token", "cameras", "image_size", "camera_path", "intrinsics", "camera_to_ego", "camera_ego_to_global")
    fields += ("lidar_path", "lidar_columns", "lidar_to_ego", "lidar_to_global", "scene")
    names = ("frame_count", "frame_path", "frame_intrinsics", "frame_camera_to_ego", "frame_ego_to_global")
    frames = {name: np.array(getattr(index, name)) for name in names}
    frames["frame_count"][:, camera] = count
    frames["frame_path"][:, camera, count:] = ""
    for name in names[2:]:
        frames[name][:, camera, count:] = np.nan
    return SimpleNamespace(**{name: getattr(index, name) for name in fields}, **frames)


@pytest.mark.parametrize("camera", [0, 4])
def test_a_camera_that_dropped_frames_is_left_out_of_them(scene, camera):
    """And of nothing else; the first camera's time is then the next one's."""
    clips = Clips(CONFIG, SPEC, dropped(scene[1], camera, 0), scene[0])
    clip = clips.held_out([1])
    assert clip.there[0, 1:, camera].tolist() == [False, False]
    assert clip.there[0].sum() == 18 - 2
    assert clip.others_there.all()
    cast = clip.cast[0, 1].view(6, -1).any(1)
    assert cast.tolist() == [number != camera for number in range(6)]
    assert torch.isfinite(clip.cameras.camera_to_frame).all()
    frames = frames_of(clips.index, 1, 3)
    first = 1 if camera == 0 else 0
    ego = frames.lidar_to_global[1] @ geometry.inverse(scene[1].lidar_to_ego[1])
    np.testing.assert_allclose(ego, scene[1].frame_ego_to_global[1, first, 0], atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_clips_of_any_length(scene, count):
    clip = Clips(CONFIG, dataclasses.replace(SPEC, frames=count), scene[1], scene[0]).held_out([1, 2])
    rendered = min(count, 2)
    assert clip.images.shape[:3] == (2, count, 6)
    assert clip.target.shape == (2, rendered)
    assert clip.others.shape == (2, rendered, count - 1)
    assert clip.cameras.intrinsics.shape == (2 * count, 1, 6, 3, 3)
    assert clip.noise.shape == (2, 2, rendered, 6 * SPEC.rays)
    assert len(clip.visible) == 2 * count * 6


def test_positions_decide_what_is_random(clips):
    """Not the batch that a sample comes in, nor how often it is asked for."""
    samples = np.arange(3)
    whole = clips.training_at(range(4, 7), samples)
    parts = joined([clips.training_at(range(place, place + 1), samples) for place in (4, 5, 6)])
    assert whole.tokens == parts.tokens
    for ours, theirs in zip(whole[1:], parts[1:]):
        if isinstance(ours, torch.Tensor):
            assert torch.equal(ours, theirs)
    again = clips.training_at(range(10, 11), samples)
    assert not torch.equal(again.visible, whole.visible[: len(again.visible)])


def test_masks_are_drawn_for_every_image(clips):
    visible = clips.training_at(range(2), np.arange(3)).visible
    assert visible.shape == (2 * 3 * 6, 2, 5)
    assert (visible.sum((1, 2)) == 7).all()  # of 10 cells, 3 hidden
    assert len(visible.flatten(1).unique(dim=0)) > 10


def test_which_frame_is_rendered():
    random = np.random.default_rng(0)
    there = np.array([True, False, True, True])
    chosen = {int(draw_targets(there, random)[0][1]) for _ in range(50)}
    assert chosen == {2, 3}
    assert draw_targets(there, None)[0].tolist() == [0, 2]
    assert [part.tolist() for part in draw_targets(np.array([True, False]), random)] == [[0, 1], [True, False]]
    assert [part.tolist() for part in draw_targets(np.array([True]), random)] == [[0], [True]]


def test_others_come_latest_first_and_those_that_exist_before_all():
    others, there = others_of(np.array([0, 2]), np.array([True, False, True, True]))
    assert others.tolist() == [[2, 3, 1], [0, 3, 1]]
    assert there.tolist() == [[True, True, False], [True, True, False]]
