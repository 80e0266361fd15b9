"""Pretraining samples of noise, in memory: what evaluation and pictures are tried on."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch

from batches.geomim import GeoMIMBatch
from geomim_configs import geomim_config
from models.names import CAMERAS
from one_frame import one_frame
from storage.bev import BevAttributes

CONFIG = geomim_config(
    backbone={"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4), "window_sizes": (8, 4, 4, 2)},
    image={"size": (64, 96)},
    decoder={"width": 16, "num_heads": 2, "depth": 4},
    depth_bins=(1.0, 49.0, 1.0),
    context=4,
    patch=4,
    probe_samples=3,
)
VIEWS, CHANNELS, SIDE = 2, 3, 16
TRAIN, VAL = np.arange(4), np.arange(4, 9)


@dataclass
class Maps:
    """BevReader's part in it."""

    maps: np.ndarray
    shape: tuple[int, int, int]
    attributes: BevAttributes

    def __getitem__(self, sample: int) -> np.ndarray:
        return self.maps[sample]


class MadeUpBatches:
    """Nine samples of noise, in the shape of GeoMIMBatches: two cameras, a box each, a third of the cells active."""

    def __init__(self):
        self.image_size = CONFIG.image.size
        generator = torch.Generator().manual_seed(0)

        def normal(*shape):
            return torch.randn(*shape, generator=generator)

        def uniform(*shape):
            return torch.rand(*shape, generator=generator)

        count = len(TRAIN) + len(VAL)
        self.maps = (normal(count, CHANNELS, SIDE, SIDE) * (uniform(count, 1, SIDE, SIDE) < 0.3)).half()
        self.images = (uniform(count, VIEWS, 64, 96, 3) * 255).byte()
        self.depths = uniform(count, VIEWS, 4, 6) * 60 * (uniform(count, VIEWS, 4, 6) < 0.55)
        self.bev = Maps(
            self.maps.numpy(), (CHANNELS, SIDE, SIDE), BevAttributes((-8, -8, -5, 8, 8, 3), (1.0, 1.0), count)
        )
        self.index = SimpleNamespace(
            cameras=CAMERAS[:VIEWS],
            box_rows=lambda sample: slice(sample, sample + 1),
            box_center=uniform(count, 3).numpy() * 12 - 6,
            box_size=uniform(count, 3).numpy() * 4 + 1,
            box_yaw=normal(count).numpy(),
            box_velocity=np.zeros((count, 2)),
            box_label=np.zeros(count, np.int64),
            box_lidar_points=np.ones(count, np.int64),
        )

    def held_out(self, samples: np.ndarray) -> GeoMIMBatch:
        (s,) = samples
        values = self.maps[s].flatten(1).T
        cells = (values != 0).any(1).nonzero()[:, 0]
        intrinsics = torch.tensor([[50.0, 0, 48], [0, 50, 32], [0, 0, 1]]).expand(1, VIEWS, 3, 3)
        pose = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]).expand(1, VIEWS, 4, 4)
        cameras = one_frame(intrinsics, torch.eye(4).expand(1, VIEWS, 4, 4), pose, pose)
        groups = torch.arange(6).view(1, 2, 3) % 2
        rest = self.depths[[s]], cells, values[cells], self.bev.shape
        return GeoMIMBatch([str(s)], self.images[[s]], cameras, groups, *rest)
