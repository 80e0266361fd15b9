"""A simulated scene of three key frames with camera frames between them, and what pretraining reads of it."""

from pathlib import Path

import numpy as np
import pytest

from in_parts import run_whole
from simulate.config import SimulateConfig
from simulate.write import simulate
from storage.artifact import Artifact
from storage.bev import BevAttributes, BevWriter
from storage.index import Index, write_index
from tasks.depth import run as depth
from tasks.depth.config import DepthConfig
from tasks.engine.stage import Inputs
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest

# A small MIM4D.
MIM4D = {
    "name": "mim4d",
    "frames": 3,
    "depth_bins": (1, 33, 4.0),
    "width": 8,
    "context": 8,
    "volume": {"range": (-32, -32, -5, 32, 32, 3), "cell": 4.0, "heights": 2, "channels": 8},
    "temporal": {"width": 16, "short_ffn": 16, "long_ffn": 16},
    "render": {"rays": 8, "samples": 8, "importance": 4},
    "probe_samples": 2,
}


@pytest.fixture(scope="session")
def clip_world(tmp_path_factory) -> Inputs:
    """Its index keeps three earlier frames of each camera; the teacher's maps are of noise."""
    root = tmp_path_factory.mktemp("clips")
    config = SimulateConfig(keyframes=3, image_scale=0.1, lidar_rate=2, workers=1, camera_sweeps=True)
    simulate(config, root / "data", ("scene-0061",))
    artifacts = {stage: Artifact(root, stage, f"{stage:0<64}") for stage in ("ingest", "teacher", "depth")}
    for artifact in artifacts.values():
        artifact.path.mkdir(parents=True)
    arrays, attributes, _ = ingest(root / "data", "v1.0-mini", IngestConfig(sweeps=0, frames=3))
    write_index(artifacts["ingest"].path / "index.zarr", arrays, attributes)
    index = opened(artifacts["ingest"].path)
    inputs = Inputs(root / "data", "v1.0-mini", artifacts)
    run_whole(depth, DepthConfig(sweeps=0), inputs, artifacts["depth"])
    grid = BevAttributes((-32.0, -32.0, -5.0, 32.0, 32.0, 3.0), (2.0, 2.0), len(index))
    bev = BevWriter(artifacts["teacher"].path / "bev.zarr", index.token, (3, 32, 32), grid)
    random = np.random.default_rng(0)
    bev.write(0, random.normal(size=(len(index), 3, 32, 32)) * (random.random((len(index), 1, 32, 32)) < 1 / 3))
    return inputs


def opened(ingest: Path) -> Index:
    """The index of an artifact of ingest."""
    return Index.open(ingest / "index.zarr")
