"""A simulated scene of two key frames, and its index."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from finetune_world import world  # noqa: F401
from simulate.config import SimulateConfig
from simulate.write import simulate
from storage.index import Index, write_index
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest


@dataclass
class SimulatedScene:
    dataroot: Path
    index: Index


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> SimulatedScene:
    folder = tmp_path_factory.mktemp("simulated")
    data = folder / "data"
    simulate(SimulateConfig(keyframes=2, image_scale=0.05, lidar_rate=2, workers=1), data, ("scene-0061",))
    arrays, attributes, _ = ingest(data, "v1.0-mini", IngestConfig(sweeps=0))
    write_index(folder / "index.zarr", arrays, attributes)
    return SimulatedScene(data, Index.open(folder / "index.zarr"))
