import pytest
import torch

from finetune_world import TINY
from tasks.finetune.config import FinetuneConfig
from tasks.finetune.network import build_detector

RESNET = {"backbone": {"name": "resnet", "depth": 18}}
STEREO = {"view": {"frames": 2, "camera_aware": True, "stereo": True, "aspp_width": 4}}
OCCUPANCY = {"task": "occupancy", "bev_range": 40.0, "bev_cell": 2.5, "bev_rotation": 0, "bev_scale": 0}


@pytest.mark.parametrize("fields", [{}, STEREO, {"task": "segmentation"}, OCCUPANCY, RESNET])
def test_every_norm_has_the_configs_momentum(fields):
    detector = build_detector(FinetuneConfig.model_validate(TINY | fields | {"norm_momentum": 0.03}))
    norms = [m for m in detector.modules() if isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
    assert len(norms) > 10
    assert {norm.momentum for norm in norms} == {0.03}
