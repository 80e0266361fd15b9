"""GeoMIM's pretraining configs: every field is read, or refused by name."""

import pytest
import torch

from models.layouts import fill_geomim, geomim_to_original, read_layout
from models.public.geomim import read_geomim
from models.public.used import UnreadableConfig
from one_frame import one_frame
from public_configs import GEOMIM, changed

BACKBONE, VIEW = (f"model.encoders.camera.{part}" for part in ("backbone", "vtransform"))


def test_a_file_of_the_config_fills_the_student():
    public = read_geomim(GEOMIM)
    torch.manual_seed(0)
    one, other = (public.student.build(public.view, public.target_channels) for _ in range(2))
    assert one.view_transform.spec.truncate
    fill_geomim(other, read_layout(geomim_to_original(one.state_dict())))
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in one.state_dict().items())
    eye = torch.eye(4).expand(1, 2, 4, 4)
    cameras = one.geometry(one_frame(eye[..., :3, :3], eye, eye, eye), (64, 96))
    made = one(torch.randn(1, 2, 3, 64, 96), cameras, torch.zeros(1, 2, 3).long())
    assert made.bev.shape == (2, 1, 16, 10, 8)


def test_what_no_shape_shows():
    assert read_geomim(GEOMIM).student.decoder.num_heads == 4
    assert read_geomim(changed(GEOMIM, f"{BACKBONE}.decoder_num_heads", 2)).student.decoder.num_heads == 2
    assert read_geomim(changed(GEOMIM, f"{BACKBONE}.mlp_ratio", 2)).student.backbone.mlp_ratio == 2
    assert read_geomim(changed(GEOMIM, f"{VIEW}.depth_loss_weight", 0.5)).view.depth_weight == 0.5


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("model.type", "BEVFusion", "type is 'BEVFusion': only 'BEVFusionGeoMIM'"),
        (f"{BACKBONE}.type", "SwinTransformer", "only 'SwinTransformerBEV'"),
        (f"{BACKBONE}.patch_size", 2, "patch_size is 2"),
        (f"{BACKBONE}.decoder_depth", 6, "decoder_depth is 6 .* only multiples of 4"),
        (f"{BACKBONE}.decoder_num_heads", 3, "only multiples"),
        (f"{BACKBONE}.decoder_num_heads", 0, "decoder_num_heads must be a whole number of at least 1"),
        (f"{BACKBONE}.pretrain_img_size", 16, "pretrain_img_size must be a whole number of at least 32"),
        (f"{VIEW}.dbound", [1.0, 9.0, 0], "dbound must be low < high and a step"),
        (f"{VIEW}.zbound", [-10, 10, 0], "zbound must be low < high and a step"),
        (f"{BACKBONE}.mask_ratio", 0.7, r"nothing here knows what .*backbone\.mask_ratio means"),
        (f"{VIEW}.type", "LSSTransform", "only 'DepthLSSTransformGT'"),
        (f"{VIEW}.downsample", 1, "downsample is 1: only 2"),
        (f"{VIEW}.stride", None, "stride is 8: only 16"),
        (f"{VIEW}.feature_size", [8, 12], r"feature_size is \[8, 12\], but image_size / 16 is \[4, 6\]"),
        (f"{VIEW}.zbound", [-10, 10, 5], "4 height bins"),
        (f"{VIEW}.ybound", [-6.4, 6.4, 0.4], "only square ones"),
        (f"{VIEW}.norm_cfg", {"type": "SyncBN", "eps": 1e-3}, "norm_cfg is Norm"),
        (f"{VIEW}.in_channels", 32, "in_channels is 32, but decoder_dim is not"),
        ("model.bev_feat_dim", 256, "bev_feat_dim is 256, but"),
        ("model.encoders.lidar.backbone.block_type", "conv_module", "only 'basicblock'"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(place, value, sentence):
    with pytest.raises(UnreadableConfig, match=sentence):
        read_geomim(changed(GEOMIM, place, value))
