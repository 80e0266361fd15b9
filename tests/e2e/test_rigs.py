"""The whole pipeline on another car's recording: five cameras of two sizes, most under other names, a turned LiDAR."""

import json

import pytest

from driver import Cli
from gallery.opened import open_artifact
from other_rig import FIVE, FIVE_IN_ORDER, SMALL, rewrite, turn

pytestmark = pytest.mark.e2e


def test_all_stages_run_on_five_cameras_and_a_turned_lidar(world, tmp_path):
    data = rewrite(world, tmp_path / "data", FIVE, SMALL, turn(45))
    cli = Cli(data, tmp_path / "artifacts")
    for stage in ("ingest", "fit", "teacher", "depth", "pretrain", "finetune", "evaluate"):
        cli.here(stage)
    evaluated = cli.path("evaluate")
    metrics = json.loads((evaluated / "metrics.json").read_text())
    assert metrics["samples"] > 0
    assert metrics["predictions"] > 0
    index = open_artifact(evaluated).index
    assert index.cameras == FIVE_IN_ORDER
    assert len({tuple(size) for size in index.image_size[0].tolist()}) == 2
    for name in ("detections_1.png", "report.md"):
        assert (evaluated / name).is_file()
