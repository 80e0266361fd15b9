"""A simulated world of three scenes, its index and depth, and a backbone with random weights."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from in_parts import run_whole
from models.backbones.build import build_backbone
from simulate.config import SimulateConfig
from simulate.write import simulate
from storage.artifact import Artifact
from storage.index import Index, write_index
from storage.manifest import Recipe
from tasks.depth import run as depth
from tasks.depth.config import DepthConfig
from tasks.engine.stage import STAGES, Inputs
from tasks.finetune.config import EvaluateConfig, Evaluation, FinetuneConfig
from tasks.finetune.evaluate import run as run_evaluate
from tasks.finetune.run import run as run_finetune
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest

TINY = {
    "backbone": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_sizes": (8, 8, 4, 2)},
    "image": {"size": (64, 128)},
    "bev_cell": 3.2,
    "depth_bins": (1.0, 60.0, 3.0),
    "image_width": 8,
    "context": 8,
    "bev_widths": (8, 8, 8),
    "bev_width": 8,
    "head_width": 8,
    "steps": 3,
    "batch_size": 2,
    "warmup": 1,
    "drop_path": 0.3,
    "depth_weight": 1.0,
    "threads": 1,
    "device": "cpu",
    "seconds_between_saves": 1e-9,
}


EVALUATE = EvaluateConfig(score_threshold=0.0)


@dataclass
class World:
    inputs: Inputs
    index: Index
    config: FinetuneConfig

    def configured(self, **fields) -> FinetuneConfig:
        """The config with other values."""
        return FinetuneConfig.model_validate(self.config.model_dump() | fields)

    def without(self, *names: str) -> Inputs:
        """The inputs but for some artifacts."""
        artifacts = {name: artifact for name, artifact in self.inputs.artifacts.items() if name not in names}
        return Inputs(self.inputs.dataroot, self.inputs.version, artifacts)

    def finetune(self, folder: Path, kind: type[Artifact] = Artifact, inputs: Inputs | None = None, **fields):
        """The artifact of a training with other values of the config."""
        config = self.configured(**fields)
        recipe = Recipe(stage="finetune", version=1, config=config.key_fields(), inputs={})
        artifact = kind(folder, "finetune", recipe.key)
        artifact.begin(recipe)
        summary = run_finetune(config, inputs or self.inputs, artifact)
        artifact.finish(recipe, summary, 1.0, {}, STAGES["finetune"].outputs)
        return artifact

    def evaluate(
        self, folder: Path, trained: Artifact | None, inputs: Inputs | None = None, settings=EVALUATE, **fields
    ):
        """The folder of an evaluation, and its summary."""
        artifact = Artifact(folder, "evaluate", "0" * 64)
        artifact.path.mkdir(parents=True)
        inputs = inputs or self.inputs
        read = inputs.artifacts | ({"finetune": trained} if trained else {})
        config = Evaluation(evaluate=settings, detector=self.configured(**fields))
        return artifact.path, run_evaluate(config, Inputs(inputs.dataroot, inputs.version, read), artifact)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("world")
    data = folder / "data"
    settings = SimulateConfig(keyframes=2, image_scale=0.08, lidar_rate=2, workers=1)
    simulate(settings, data, ("scene-0061", "scene-0103", "scene-0916"))
    return world_of(data, folder)


def world_of(data: Path, folder: Path) -> World:
    """The index, depth and backbone of a dataroot, in a folder."""
    artifacts = {name: Artifact(folder, name, name) for name in ("ingest", "depth", "pretrain")}
    for artifact in artifacts.values():
        artifact.path.mkdir(parents=True)
    arrays, attributes, _ = ingest(data, "v1.0-mini", IngestConfig())
    write_index(artifacts["ingest"].path / "index.zarr", arrays, attributes)
    inputs = Inputs(data, "v1.0-mini", artifacts)
    run_whole(depth, DepthConfig(sweeps=0, workers=1), inputs, artifacts["depth"])
    config = FinetuneConfig.model_validate(TINY)
    torch.manual_seed(7)
    save_file(build_backbone(config.backbone).state_dict(), artifacts["pretrain"].path / "backbone.safetensors")
    return World(inputs, Index.open(artifacts["ingest"].path / "index.zarr"), config)
