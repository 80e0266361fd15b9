import subprocess
import sys

import pytest
from pydantic import ValidationError

from tasks.teacher.config import FitConfig, LidarConfig, TeacherConfig


def test_the_default_is_the_published_teacher():
    lidar = LidarConfig()
    assert (lidar.bev_channels, lidar.bev_shape) == (256, (180, 180))
    assert lidar.cell_size == pytest.approx((0.6, 0.6))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"range": (-50, -54, -5, 54, 54, 3)}, "no multiple of voxel_size"),
        ({"range": (-54, -54, -5, 54, 53.7, 3)}, "along y .* not divisible by the stride 8"),
        ({"range": (54, -54, -5, -54, 54, 3)}, "along x must be positive"),
        ({"voxel_size": (0.075, 0.075, 0)}, "along z must be positive"),
        ({"voxel_size": (0.075, 0.075, 2.0)}, "too small for the encoder's strides"),
        ({"widths": (16, 32, 0, 8)}, "widths must be positive"),
        ({"max_voxels": 1}, "greater than or equal to 2"),
        ({"voxel_size": (1e-9, 0.075, 0.2)}, "a map of 13,500,000,000 x 180 .* take 2,488,320 GB: make it"),
        ({"voxel_size": (0.001, 0.001, 0.2)}, r"a map of 13,500 x 13,500 cells .* GB: make it coarser"),
        ({"voxel_size": (0.075, 0.075, 1e-8)}, "channels, would take"),
        ({"sweeps": 11}, "less than or equal to 10"),
        ({"voxelsize": 1}, "Extra inputs"),
    ],
)
def test_impossible_combinations(fields, sentence):
    with pytest.raises(ValidationError, match=sentence):
        LidarConfig(**fields)


def test_a_batch_that_nobody_can_mean():
    with pytest.raises(ValidationError, match=r"batch_size\n.* less than or equal to 65536"):
        FitConfig(batch_size=10**12)


def test_what_decides_the_result_is_in_the_key():
    config = FitConfig(threads=1, device="cpu", seconds_between_saves=3)
    assert config.key_fields() == FitConfig().key_fields()
    assert FitConfig(lidar=LidarConfig(blocks=1)).key_fields() != FitConfig().key_fields()
    assert TeacherConfig(weights="random").external_files() == {}
    assert str(TeacherConfig(weights="a/b.pth").external_files()["weights"]) == "a/b.pth"
    public = TeacherConfig(weights="a.pth", public_config="b.py")
    assert str(public.external_files()["public_config"]) == "b.py"
    assert public.key_fields() != TeacherConfig(weights="a.pth").key_fields()


def test_config_imports_no_torch():
    code = "import sys, tasks.teacher.config; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("model", "fields", "sentence"),
    [
        (FitConfig, {"head": "transfusion", "head_width": 36}, "no multiple of the 8 attention heads"),
        (FitConfig, {"head": "transfusion", "queries": 400_000}, "more than the 324000 places"),
        (TeacherConfig, {"mmdet3d": "a.py"}, "mmdet3d needs weights"),
        (
            TeacherConfig,
            {"public_config": "a.py"},
            "public_config describes a checkpoint: name that in teacher.weights",
        ),
        (TeacherConfig, {"public_config": "a.py", "weights": "b.pth", "mmdet3d": "c.py"}, "without mmdet3d"),
        (
            FitConfig,
            {"lidar": {"range": (-5.4, -5.4, -5, 5.4, 5.4, 3), "voxel_size": (0.15, 0.15, 0.2)}},
            "makes a map of 9x9 cells, which SECOND's stride of 2 does not divide",
        ),
    ],
)
def test_impossible_networks(model, fields, sentence):
    with pytest.raises(ValidationError, match=sentence):
        model(**fields)
