import pytest
import torch

import models.openmmlab  # noqa: F401  (before mmdet3d: it may stand in for mmcv's operators)
from models.initialise import kaiming_init
from models.lidar.bev_backbone import BEVBackbone, BevBackboneSpec
from models.norm import Norm

SPECS = [
    BevBackboneSpec(6, (8, 12), (1, 2), neck_widths=(5, 5)),
    BevBackboneSpec(6, (8, 12), (1, 2), neck_widths=(40, 32)),
    BevBackboneSpec(6, (8, 12), (1, 2), neck_widths=(5, 7), upsamples=(1, 2), conv_if_same=False),
    BevBackboneSpec(
        6, (8, 12, 10), (1, 0, 2), (2, 2, 2), (5, 7, 3), (0.5, 1, 2), True, Norm(1e-3, 0.01), Norm(1e-5, 0.1)
    ),
    BevBackboneSpec(6, (8,), (3,), (1,), (4,), (4,)),
]


def mmdet3ds(spec: BevBackboneSpec) -> torch.nn.Module:
    """SECOND and SECONDFPN of mmdet3d, under the names of BEVBackbone."""
    from mmdet3d.models.backbones.second import SECOND
    from mmdet3d.models.necks.second_fpn import SECONDFPN

    norm, neck_norm = ({"type": "BN", "eps": n.eps, "momentum": n.momentum} for n in (spec.norm, spec.neck_norm))
    both = torch.nn.Module()
    both.backbone = SECOND(spec.in_channels, spec.widths, spec.layers, spec.strides, norm_cfg=norm)
    both.neck = SECONDFPN(
        list(spec.widths),
        list(spec.neck_widths),
        list(spec.upsamples),
        norm_cfg=neck_norm,
        upsample_cfg={"type": "deconv", "bias": False},
        use_conv_for_no_stride=spec.conv_if_same,
    )
    kaiming_init(both)
    return both


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_it_is_mmdet3ds_to_the_bit(spec):
    """Same names, same first weights from the same seed, same maps and statistics, in training and evaluation."""
    torch.manual_seed(3)
    ours = BEVBackbone(spec)
    torch.manual_seed(3)
    theirs = mmdet3ds(spec)
    mine, other = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(other)
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    for training in (True, False):
        bev = torch.randn(2, 6, 24, 16)
        (wanted,) = theirs.train(training).neck(theirs.backbone(bev))
        got = ours.train(training)(bev)
        assert torch.equal(got, wanted)
        assert got.shape == (2, spec.out_channels, 24 * spec.scale, 16 * spec.scale)
    assert all(torch.equal(ours.state_dict()[name], t) for name, t in theirs.state_dict().items())


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"neck_widths": (256,)}, "must have one number a level"),
        ({"strides": (1, 2, 2)}, "must have one number a level"),
        ({"strides": (1, 0)}, "must be 1 at least"),
        ({"upsamples": (1, 4)}, "branches of unequal sizes"),
        ({"strides": (2, 1), "upsamples": (1.5, 1.5)}, "must be whole numbers, or one over them"),
        ({"upsamples": (0, 0)}, "must be whole numbers, or one over them"),
    ],
)
def test_levels_that_do_not_fit_together(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        BevBackboneSpec(**fields)
