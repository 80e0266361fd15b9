"""What the detection head itself loses: the truth through its targets, decoding and suppression, evaluated."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import nms
from models.geometry import quaternion_to_rotation, rotation_to_quaternion, rotation_z
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


@pytest.mark.parametrize(("lidar", "ego"), [((0.0, 20.0), (0.0, 0.0)), ((-25.0, 15.0), (3.0, -4.0))])
def test_a_lidar_that_is_mounted_askew_costs_nothing(world, tmp_path, lidar, ego):
    """Roll and pitch (degrees) of the LiDAR on the car, and of the car on the road: all errors stay those of the head.

    Targets and results must be levelled alike: where only results were, the truth was learnt with velocities of
    (-8.1, 2.3) for (-9.2, 2.3) m/s.
    """
    _, dataroot = world
    folder = tmp_path / "data"
    shutil.copytree(dataroot / "v1.0-mini", folder / "v1.0-mini")
    for name in ("samples", "sweeps", "maps"):
        (folder / name).symlink_to(dataroot / name)
    for table, angles in (("calibrated_sensor", lidar), ("ego_pose", ego)):
        file = folder / "v1.0-mini" / f"{table}.json"
        rows = json.loads(file.read_text())
        for row in rows:
            if not row.get("camera_intrinsic"):
                turned = quaternion_to_rotation(row["rotation"]) @ askew(*np.deg2rad(angles))
                row["rotation"] = rotation_to_quaternion(turned).tolist()
        file.write_text(json.dumps(rows))
    arrays, attributes, _ = ingest(folder, "v1.0-mini", IngestConfig())
    write_index(tmp_path / "index.zarr", arrays, attributes)
    rules = tuple(replace(rule, radius=0.1) for rule in nms.CENTERPOINT)
    result = limit(Index.open(tmp_path / "index.zarr"), folder, "val", 60, 0.4, rules, tmp_path)
    assert result["mAP"] > 0.97
    assert max(result[name] for name in ("mAVE", "mAOE", "mATE")) < 1e-4


def askew(roll: float, pitch: float) -> np.ndarray:
    """(3, 3), a roll about x after a pitch about y."""
    return np.roll(rotation_z(pitch), -1, (0, 1)) @ np.roll(rotation_z(roll), 1, (0, 1))
