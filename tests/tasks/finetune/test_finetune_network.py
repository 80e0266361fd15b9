import pytest
import torch

from tasks.finetune.config import FinetuneConfig
from tasks.finetune.network import build_detector

SMALL = {
    "backbone": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_sizes": (8, 8, 4, 2)},
    "image": {"size": (64, 128)},
    "bev_cell": 3.2,
    "depth_bins": (1.0, 60.0, 3.0),
    "image_width": 8,
    "context": 8,
    "bev_widths": (8, 8, 8),
    "bev_width": 8,
    "head_width": 8,
}
RESNET = {"backbone": {"name": "resnet", "depth": 18}}
STEREO = {"view": {"frames": 2, "camera_aware": True, "stereo": True, "aspp_width": 4}}
OCCUPANCY = {"task": "occupancy", "bev_range": 40.0, "bev_cell": 2.5, "bev_rotation": 0, "bev_scale": 0}


@pytest.mark.parametrize("fields", [{}, STEREO, {"task": "segmentation"}, OCCUPANCY, RESNET])
def test_every_norm_has_the_configs_momentum(fields):
    detector = build_detector(FinetuneConfig.model_validate(SMALL | fields | {"norm_momentum": 0.03}))
    norms = [m for m in detector.modules() if isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
    assert len(norms) > 10
    assert {norm.momentum for norm in norms} == {0.03}
