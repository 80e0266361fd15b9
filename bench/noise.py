"""Real networks and noise to train them on: what steps are timed with where there is neither a dataroot nor a cache."""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from batches.detector import Batch  # noqa: E402
from batches.geomim import GeoMIMBatch  # noqa: E402
from models.boxes import Boxes  # noqa: E402
from models.cameras import Cameras  # noqa: E402
from models.depth_bins import DepthBins  # noqa: E402
from models.geomim.blocks import CrossViewBlock  # noqa: E402
from models.geomim.model import GeoMIM  # noqa: E402
from models.masking import draw_halves  # noqa: E402
from models.names import CLASSES  # noqa: E402
from tasks.engine.config import PRESETS, PipelineConfig, load_config  # noqa: E402
from tasks.finetune.config import EVALUATE, FinetuneConfig  # noqa: E402
from tasks.finetune.goals import goal_of  # noqa: E402
from tasks.pretrain.config import PretrainConfig  # noqa: E402
from tasks.pretrain.geomim.method import GeoMIMPretraining  # noqa: E402
from tasks.pretrain.geomim.model import build_model  # noqa: E402

VIEWS = 6
TEACHER = 256, (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)  # channels, and range (m) of the BEV that is rebuilt
BEV_CELL = {"full": 0.6, "small": 1.2}  # m
ACTIVE, SEEN = 1 / 6, 2 / 3  # of the teacher's cells, and of the images' cells with a LiDAR point
BOXES = 40  # of a sample

# A network of an eighth of the width and few blocks, of images of a tenth of the pixels: a quick run of everything.
SMALL = {
    "pretrain": {
        "image.size": [64, 192],
        "method.decoder.width": 64,
        "method.decoder.num_heads": 2,
        "method.decoder.depth": 4,
        "method.depth_bins": [1.0, 60.0, 1.0],
        "method.context": 32,
    },
    "finetune": {
        "image.size": [64, 192],
        "bev_cell": 1.6,
        "image_width": 32,
        "context": 16,
        "bev_widths": [16, 32, 64],
        "bev_width": 32,
        "head_width": 16,
        "view.aspp_width": 16,
    },
}


def preset(name: str, size: str) -> PipelineConfig:
    """A file of configs/, by its name without .yaml; or the same of a small network."""
    file = PRESETS / f"{name}.yaml"
    if size == "full":
        return load_config(file)
    width, heads = (24, [1, 2, 4, 8]) if name.endswith("swin-l") else (16, [1, 2, 4, 8])
    settings: dict[str, Any] = {
        "backbone.embed_dim": width,
        "backbone.num_heads": heads,
        "backbone.depths": [1, 1, 2, 1],
    }
    settings |= {f"{stage}.{field}": value for stage, fields in SMALL.items() for field, value in fields.items()}
    return load_config(file, [f"{field}={value}" for field, value in settings.items()])


def ring(views: int) -> Tensor:
    """Poses (N, 4, 4) of level cameras at the origin, evenly around it; camera -> frame, float64."""
    angle = torch.arange(views, dtype=torch.float64) * (2 * torch.pi / views)
    pose = torch.zeros(views, 4, 4, dtype=torch.float64)
    pose[:, 0, 0], pose[:, 1, 0] = angle.cos(), -angle.sin()  # a camera's x: to its right
    pose[:, 2, 1] = -1  # its y: down
    pose[:, 0, 2], pose[:, 1, 2] = angle.sin(), angle.cos()  # its z: ahead
    pose[:, 3, 3] = 1
    return pose


def cameras(batch: int, frames: int, views: int, size: tuple[int, int]) -> Cameras:
    """A ring with 70 degrees of view in images of `size`, 3 m further back in each earlier frame."""
    height, width = size
    focal, eye = width / 1.4, torch.eye(4, dtype=torch.float64)
    lens = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    poses = ring(views).repeat(frames, 1, 1, 1)
    poses[..., 0, 3] -= 3.0 * torch.arange(frames)[:, None]
    return Cameras(
        lens.repeat(batch, frames, views, 1, 1),
        eye.repeat(batch, frames, views, 1, 1),
        poses.repeat(batch, 1, 1, 1, 1),
        (ring(views) + 0.01).repeat(batch, 1, 1, 1),
        eye.repeat(batch, 1, 1),
    )


def images(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)


def wake(model: nn.Module) -> None:
    """Weights for what starts as the identity, which would hide a difference."""
    for block in model.modules():
        if isinstance(block, CrossViewBlock):
            nn.init.normal_(block.attn.proj.weight, std=0.02)
            nn.init.normal_(block.mlp.fc2.weight, std=0.02)


class NoiseForGeoMIM(GeoMIMPretraining):
    """GeoMIM of a config, on noise: a `tasks.pretrain.method.Method`. size: `full` or `small`."""

    def __init__(self, config: PretrainConfig, size: str, views: int = VIEWS):
        self.config, self.method, self._cell, self._views = config, config.method, BEV_CELL[size], views

    def build(self) -> GeoMIM:
        """The network of torch's seed 0."""
        torch.manual_seed(0)
        channels, span = TEACHER
        model = build_model(GeoMIM, self.config, self.method, channels, span, self._cell)
        wake(model)
        return model

    def batch(self, positions: range, samples: np.ndarray) -> GeoMIMBatch:
        """Noise that follows from the first position."""
        generator = torch.Generator().manual_seed(1 + positions[0])
        size, batch = self.config.image.size, len(positions)
        stride, coarsest = (self.config.backbone.strides[i] for i in (2, 3))
        channels, span = TEACHER
        side = round((span[3] - span[0]) / self._cell)
        active = (torch.rand(batch * side * side, generator=generator) < ACTIVE).nonzero()[:, 0]
        shape = batch, self._views, size[0] // stride, size[1] // stride
        depth = 60 * torch.rand(shape, generator=generator)
        return GeoMIMBatch(
            [str(position) for position in positions],
            images(generator, batch, self._views, *size),
            cameras(batch, 1, self._views, size),
            draw_halves(1, self.method.mask_grid(size, coarsest), generator),
            torch.where(torch.rand(shape, generator=generator) < SEEN, depth, 0),
            active,
            torch.randn(len(active), channels, generator=generator).relu().half(),
            (channels, side, side),
        )


class NoiseForDetector:
    """What `batches.detector.Batches` is to a training and an evaluation, of noise."""

    def __init__(self, config: FinetuneConfig):
        self.config = config
        # It keeps the index and the dataroot for scores and pictures, which nobody asks for here.
        self._learnt = goal_of(config)(config, None, None, EVALUATE).learnt  # type: ignore[arg-type]
        self._bins = DepthBins(*config.depth_bins, config.view.depth_spacing)

    def training_at(self, positions: range, samples: np.ndarray) -> Batch:
        return self._batch(positions, self.config.needs_depth)

    def evaluation(self, samples: np.ndarray) -> Batch:
        return self._batch(samples, False)

    def _batch(self, samples: range | np.ndarray, with_depth: bool) -> Batch:
        generator = torch.Generator().manual_seed(1 + int(samples[0]))
        random = np.random.default_rng(1 + int(samples[0]))
        config, batch = self.config, len(samples)
        (height, width), stride, frames = config.image.size, config.backbone.strides[2], config.view.images
        boxes = [self._boxes(random) for _ in samples]
        truths = [self._learnt(0, np.eye(4), of) for of in boxes]
        depth = 75 * torch.rand(batch, VIEWS, height // stride, width // stride, generator=generator)
        return Batch(
            samples=np.array(samples),
            tokens=[str(sample) for sample in samples],
            images=images(generator, batch, frames, VIEWS, height, width),
            cameras=cameras(batch, frames, VIEWS, (height, width)),
            boxes=boxes,
            depth_labels=self._bins.labels(depth) if with_depth else None,
            truth=tuple(map(torch.cat, zip(*truths))),
        )

    def _boxes(self, random: np.random.Generator) -> Boxes:
        """Cars to pedestrians, anywhere in the range."""
        span = 0.95 * self.config.bev_range
        return Boxes(
            random.uniform((-span, -span, -1), (span, span, 1), (BOXES, 3)),
            random.uniform(0.5, 5, (BOXES, 3)),
            random.uniform(-np.pi, np.pi, BOXES),
            random.normal(size=(BOXES, 2)),
            random.integers(0, len(CLASSES), BOXES),
        )
