"""Detectors of one frame and of several: what comes out, and through which frames gradients flow."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from models.bevdet.encoder import ResidualSpec
from models.bevdet.necks import FpnLss, FpnSpec
from models.cameras import Cameras
from small_detectors import SIZE, VARIANTS, rig, small_detector


@pytest.fixture(params=VARIANTS)
def variant(request):
    torch.manual_seed(1)
    return small_detector(**VARIANTS[request.param])


def images(batch, frames, views=2):
    return torch.randn(batch, frames, views, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("scale", "extra"), [(2, 1), (4, 2)])
def test_the_neck_brings_both_maps_to_one_size(scale, extra):
    neck = FpnLss((3, 5), FpnSpec(4, scale=scale, extra_scale=extra)).eval()
    fine, coarse = torch.randn(2, 3, 8, 12), torch.randn(2, 5, 8 // scale, 12 // scale)
    out = neck(fine, coarse)
    assert out.shape == (2, 4, 8 * extra, 12 * extra)
    up = F.interpolate(coarse, scale_factor=scale, mode="bilinear", align_corners=True)
    torch.testing.assert_close(neck.up(coarse), up)
    assert not torch.allclose(neck(fine, coarse + 1), out)


def test_a_lone_object_lands_in_its_cell():
    """A camera at the origin that looks along +x, all depth in one bin: features stand in a line at that x."""
    net = small_detector()
    torch.nn.init.zeros_(net.depth_net.weight)
    torch.nn.init.constant_(net.depth_net.bias[:8], -50.0)
    with torch.no_grad():
        net.depth_net.bias[3], net.depth_net.bias[8:] = 50.0, 1.0  # bin 3 stands at 4 m
    intrinsics = torch.tensor([[96.0, 0, 48], [0, 64, 32], [0, 0, 1]])[None, None, None]
    looking_ahead = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])[None, None, None]
    cameras = Cameras(
        intrinsics, torch.eye(4)[None, None, None], looking_ahead, looking_ahead[:, 0], torch.eye(4)[None]
    )
    bev, depth, _ = net.lift(images(1, 1, 1)[:, 0], *net.geometry(cameras))
    assert bev.shape == (1, 4, 16, 16)  # (B, C, Y, X)
    hit = bev[0, 0].abs() > 1e-4
    assert hit.any(0).nonzero().flatten().tolist() == [12]  # x in [4, 5)
    assert hit.any(1).nonzero().flatten().tolist() == [6, 7, 8, 9, 10]  # y = -1.96, -1.17, -0.38, 0.42, 1.21, 2
    assert bev[0, 0].sum().item() == pytest.approx(24, abs=1e-3)  # 4 x 6 feature pixels with context 1
    torch.testing.assert_close(depth.sum(2), torch.ones(1, 1, 4, 6))


def test_what_comes_out(variant):
    cameras = variant.geometry(rig(2, variant.input_frames, 3))
    bev, depth = variant(images(2, variant.input_frames, 3), cameras)
    assert bev.shape == (2, 8, 16, 16)
    assert depth.shape == (2, 3, 8, 4, 6)
    torch.testing.assert_close(depth.sum(2), torch.ones(2, 3, 4, 6))
    assert bev.isfinite().all()


def test_every_frame_counts_and_its_cameras_too(variant):
    pictures, rigged = images(1, variant.input_frames), rig(1, variant.input_frames, 2)
    cameras = variant.geometry(rigged)
    with torch.no_grad():
        bev, depth = variant(pictures, cameras)
        for frame in range(variant.input_frames):
            other = pictures.clone()
            other[:, frame] = other[:, frame].flip(-1)
            changed, changed_depth = variant(other, cameras)
            assert not torch.allclose(changed, bev)
            # The key frame's depth is told by its own images, and with stereo by the ones before.
            assert torch.equal(changed_depth, depth) == (frame > int(variant.spec.stereo))
        if variant.spec.frames > 1:
            poses = rigged.camera_to_frame.clone()
            poses[:, 1, :, 0, 3] += 2.0
            assert not torch.allclose(
                variant(pictures, variant.geometry(replace(rigged, camera_to_frame=poses)))[0], bev
            )


def test_without_earlier_frames(variant):
    """The key frame alone, zeros beside it: what earlier frames show does not matter."""
    pictures = images(1, variant.input_frames)
    cameras = variant.geometry(rig(1, variant.input_frames, 2))
    other = torch.cat([pictures[:, :1], torch.randn_like(pictures[:, 1:])], 1)
    with torch.no_grad():
        bev, depth = variant(pictures, cameras, with_previous=False)
        again, depth_again = variant(other, cameras, with_previous=False)
        key, *earlier = variant.frame_maps(pictures, cameras, with_previous=False)[0]
    assert torch.equal(bev, again)
    assert torch.equal(depth, depth_again)
    assert key.any()
    assert [bool(bev.any()) for bev in earlier] == [False] * (variant.spec.frames - 1)


def test_a_wrong_number_of_frames_is_named():
    with pytest.raises(ValueError, match="looks at 2 frames, not at 1"):
        small_detector(frames=2)(images(1, 1), ())


@pytest.mark.parametrize(
    ("parts", "stride"),
    [
        ({"image_neck": FpnSpec(8, extra_scale=2)}, 8),
        ({"bev_encoder": ResidualSpec((8, 6, 4), (1, 2, 3), (1, 2, 2)), "bev_neck": FpnSpec(8, (0, 2), 4, 1)}, 16),
        ({"bev_encoder": ResidualSpec((6, 8), (1, 1), (2, 2)), "bev_neck": FpnSpec(8, (0, 1), 2, 2)}, 16),
        ({"frames": 2, "pre_blocks": 1}, 16),
    ],
    ids=str,
)
def test_other_necks_and_encoders_make_a_map_of_the_grid(parts, stride):
    net = small_detector(**parts)
    bev, depth = net(images(1, net.input_frames), net.geometry(rig(1, net.input_frames, 2)))
    assert bev.shape == (1, 8, 16, 16)
    assert depth.shape[-2:] == (SIZE[0] // stride, SIZE[1] // stride)
    assert net.stride == stride


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"bev_neck": FpnSpec(8, (0, 2), 2, 2)}, r"does not fit stages with strides \[2, 4, 8\]"),
        ({"bev_neck": FpnSpec(8, (0, 3), 4, 2)}, "does not fit stages"),
        ({"bev_neck": FpnSpec(8, (0, 2), 4, 1)}, "no map as fine as the grid from one of stride 2"),
        ({"image_neck": FpnSpec(8, (0, 2), 4)}, "the backbone's last two stages"),
        (
            {"image_neck": FpnSpec(8, extra_scale=2), "camera_aware": True, "stereo": True, "frames": 2},
            "stereo needs an image neck that makes its map no finer",
        ),
    ],
)
def test_parts_that_do_not_fit_together(parts, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_detector(**parts)


def test_stereo_without_the_depth_net_for_it():
    with pytest.raises(ValueError, match="camera-aware"):
        small_detector(stereo=True)


def test_gradients_flow_into_the_key_frame_only(variant):
    pictures = images(1, variant.input_frames).requires_grad_()
    bev, depth = variant(pictures, variant.geometry(rig(1, variant.input_frames, 2)))
    (bev.square().mean() + depth[:, :, 0].mean()).backward()
    assert pictures.grad[:, 0].abs().sum() > 0
    assert pictures.grad[:, 1:].abs().sum() == 0
    unmoved = {name for name, p in variant.named_parameters() if p.grad is None}
    assert unmoved == set()


def test_earlier_frames_keep_no_activations():
    """What the backward pass needs is as large with earlier frames as without."""
    net = small_detector(frames=3, camera_aware=True, aspp_width=4, stereo=True)
    sizes = []
    for with_previous in (True, False):
        kept = {}
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t, kept=kept: kept.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t
        )
        with hooks:
            net(images(1, 4), net.geometry(rig(1, 4, 2)), with_previous)
        sizes.append(sum(t.untyped_storage().nbytes() for t in kept.values()))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("align", [False, True])
def test_an_ego_that_stands_still_sees_the_same_again(align):
    """The same images from the same places: the same map, however it gets into the key frame's place."""
    net = small_detector(frames=2, align_after_splat=align)
    pictures = images(2, 1).expand(-1, 2, -1, -1, -1, -1)
    (key, earlier), _ = net.frame_maps(pictures, net.geometry(_twice(rig(2, 1, 2))))
    torch.testing.assert_close(earlier, key, atol=1e-4, rtol=1e-4)


def _twice(cameras: Cameras) -> Cameras:
    """One frame as two."""
    fields = ("intrinsics", "post_homography", "camera_to_frame")
    return replace(cameras, **{name: getattr(cameras, name).expand(-1, 2, -1, -1, -1) for name in fields})
