import pytest
from pydantic import ValidationError

from tasks.pretrain.config import PretrainConfig, check_grid


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"image": {"size": (250, 704)}}, "height of 250 is not a multiple of the backbone's stride, 32"),
        ({"image": {"size": (256, 704)}, "mask_cell": 64 * 3}, "not a multiple of mask_cell, 192"),
        ({"backbone": {"embed_dim": 30}}, r"num_heads\[0\] is 4, which does not divide the 30 channels"),
        ({"decoder": {"width": 100, "num_heads": 8}}, "num_heads is 8, which does not divide the width 100"),
        ({"depth_bins": (60.0, 1.0, 0.5)}, "nearest < farthest"),
        ({"depth_bins": (1.0, 60.0, 1e-9)}, "depth_bins, 59,000,000,000 of them, would take"),
        ({"image": {"size": (320_000, 704_000)}}, "image.size of 320,000 x 704,000 px would take"),
        ({"mask_ratio": 0.3}, "greater than or equal to 0.5"),
        (
            {"batch_size": 10**12},
            "less than or equal to 65536",
        ),
        (
            {"batch_size": 12, "accumulate": 2, "ranks": 4},
            r"batch_size is 12, which accumulate \(2\) times ranks \(4\)",
        ),
        ({"reconstruction_weight": 0, "depth_weight": 0}, "both 0: there is nothing to learn"),
        ({"patches": 18}, "Extra inputs"),
    ],
)
def test_impossible_configs_are_refused(fields, sentence):
    with pytest.raises(ValidationError, match=sentence):
        PretrainConfig(**fields)


def test_the_patch_divides_the_teachers_grid():
    check_grid(PretrainConfig(), (180, 180))
    with pytest.raises(ValueError, match=r"pretrain.patch is 18, .* 180x128 cells along y"):
        check_grid(PretrainConfig(), (180, 128))


def test_how_it_runs_is_not_part_of_the_key():
    how = PretrainConfig(device="cuda", threads=4, ranks=8, checkpointing=True)
    assert how.key_fields() == PretrainConfig().key_fields()
    assert PretrainConfig(seed=1).key_fields() != PretrainConfig().key_fields()
