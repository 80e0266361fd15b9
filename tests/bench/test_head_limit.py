"""What the detection head itself loses: the truth through its targets, decoding and suppression, evaluated."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from models import nms
from storage.index import Index, write_index
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest
from tasks.simulate.config import SimulateConfig
from tasks.simulate.write import simulate

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from head_limit import limit


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limit")
    settings = SimulateConfig(keyframes=3, image_scale=0.05, lidar_rate=2, workers=1)
    simulate(settings, folder / "data", ("scene-0103", "scene-0916"))
    arrays, attributes, _ = ingest(folder / "data", "v1.0-mini", IngestConfig())
    write_index(folder / "index.zarr", arrays, attributes)
    return Index.open(folder / "index.zarr"), folder / "data"


@pytest.mark.parametrize("rules", [nms.CENTERPOINT, nms.BEVDET], ids=["circle", "scale-nms"])
def test_the_truth_through_the_head_scores_above_095(world, tmp_path, rules):
    result = limit(*world, "val", 51.2, 0.8, rules, tmp_path)
    assert result["mAP"] > 0.95
    assert result["NDS"] > 0.95
    assert min(scores["ground_truth"] for scores in result["classes"].values()) > 0


def test_with_too_much_suppression_it_scores_less(world, tmp_path):
    """That the test above can fail: one circle for all that is within ten metres."""
    greedy = tuple(replace(rule, radius=10.0) for rule in nms.CENTERPOINT)
    assert limit(*world, "val", 51.2, 0.8, greedy, tmp_path)["mAP"] < 0.9
