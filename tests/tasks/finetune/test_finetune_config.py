import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.finetune.config import FinetuneConfig

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"image": {"size": (250, 704)}}, r"image.size \(250, 704\) must be multiples of 32"),
        ({"bev_cell": 0.75}, "2 \\* bev_range / bev_cell = 136.533 must be a multiple of 8"),
        ({"bev_range": 50.4, "bev_cell": 0.8}, "= 126 must be a multiple of 8"),
        ({"depth_bins": (60.0, 1.0, 1.0)}, "must be nearest < farthest"),
        ({"height": (3.0, -5.0)}, "height .* must ascend"),
        ({"epochs": 3}, "epochs"),
        ({"rate": float("nan")}, "finite"),
    ],
)
def test_combinations_that_cannot_work_are_refused(values, sentence):
    with pytest.raises(ValidationError, match=sentence):
        FinetuneConfig(**values)


def test_how_it_runs_is_no_part_of_the_key():
    one, other = FinetuneConfig(), FinetuneConfig(threads=3, device="cpu", loaders=1, seconds_between_saves=5.0)
    assert one.key_fields() == other.key_fields()
    assert one.key_fields() != FinetuneConfig(seed=1).key_fields()
    assert "embed_dim" in one.key_fields()["backbone"]


def test_the_config_needs_no_torch():
    code = "import sys, tasks.finetune.config; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
