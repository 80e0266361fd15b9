"""From index, images and cached depth to a detector's batches, in the key frame's EGO frame."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.bevdet.cameras import Cameras
from models.bevdet.detector import STRIDE
from models.boxes import Boxes
from models.depth_bins import DepthBins
from models.geometry import inverse
from storage.depth import DepthReader
from storage.index import Index
from tasks.batches.depth_maps import depth_map
from tasks.batches.images import draw_test, draw_training, load_image, normalise, post_homography
from tasks.batches.lidar import LidarAugmentation, augmented, sample_boxes
from tasks.finetune.config import FinetuneConfig
from tasks.training.order import batch_at, generator_at


@dataclass(frozen=True)
class Batch:
    """B samples with N cameras each."""

    samples: np.ndarray  # (B,) rows of the index
    tokens: list[str]
    images: Tensor  # (B, T, N, H, W, 3) uint8; frame 0 is the key frame
    cameras: Cameras
    boxes: list[Boxes]  # the truth in the (augmented) ego frame; empty lists where there is none
    depth_labels: Tensor | None  # (B, N, h, w) int64, bin or NO_LABEL of models.depth_bins

    def to(self, device: torch.device) -> "Batch":
        """The same with its tensors on a device."""
        return replace(
            self,
            images=self.images.to(device),
            cameras=Cameras(*(matrix.to(device) for matrix in self.cameras)),
            depth_labels=None if self.depth_labels is None else self.depth_labels.to(device),
        )

    def normalised(self) -> Tensor:
        """(B, T, N, 3, H, W) float32, the network's input."""
        return normalise(self.images)


class Batches:
    """Prepares batches; what is random in one follows from the seed and the step alone.

    depth: needed only where the config asks for depth supervision.
    """

    def __init__(self, config: FinetuneConfig, index: Index, dataroot: Path, depth: DepthReader | None = None):
        self.config, self.index, self.dataroot = config, index, dataroot
        self.depth = depth if config.depth_weight > 0 else None
        self.bins = DepthBins(*config.depth_bins)
        self.scene = LidarAugmentation(config.bev_flip, np.deg2rad(config.bev_rotation), config.bev_scale)
        self._threads = ThreadPoolExecutor(config.loaders)

    def training(self, step: int, samples: np.ndarray) -> Batch:
        """The batch of a training step, from `samples` (rows of the index), augmented."""
        chosen = batch_at(step, samples, self.config.batch_size, self.config.seed)
        return self._batch(chosen, generator_at(step, self.config.seed))

    def evaluation(self, samples: Sequence[int]) -> Batch:
        """These samples, nothing random."""
        return self._batch(np.asarray(samples), None)

    def _batch(self, samples: np.ndarray, random: np.random.Generator | None) -> Batch:
        size, index = self.config.image.size, self.index
        files, posts, poses, scenes, boxes = [], [], [], [], []
        for sample in samples:
            scene = np.eye(4)
            if random is not None:
                scene[:3, :3] = self.scene.draw(random)
            sizes = [tuple(map(int, wh)) for wh in index.image_size[sample]]
            if random is None:
                draws = [draw_test(self.config.image, wh) for wh in sizes]
            else:
                draws = [draw_training(self.config.image, wh, random) for wh in sizes]
            files += zip(index.camera_path[sample], draws, sizes)
            posts.append(np.stack([post_homography(draw, size) for draw in draws]))
            poses.append(camera_to_ego(index, sample))
            scenes.append(scene)
            truth = sample_boxes(index, sample, self.config.min_lidar_points)
            truth = truth.moved(index.lidar_to_ego[sample])
            boxes.append(augmented(np.zeros((0, 5), np.float32), truth, scene[:3, :3])[1])
        # A JPEG's decoder and Pillow let go of the interpreter's lock: threads do for images what processes would.
        images = list(self._threads.map(lambda f: load_image(self.dataroot / str(f[0]), f[1], size, f[2]), files))
        post = np.stack(posts)
        return Batch(
            samples=samples,
            tokens=[str(token) for token in index.token[samples]],
            images=torch.from_numpy(np.stack(images)).unflatten(0, (len(samples), 1, -1)),
            cameras=Cameras(
                _float(index.intrinsics[samples])[:, None],
                _float(post)[:, None],
                _float(np.stack(poses))[:, None],
                _float(np.stack(scenes)),
            ),
            boxes=boxes,
            depth_labels=None if self.depth is None else self._depth_labels(samples, post),
        )

    def _depth_labels(self, samples: np.ndarray, posts: np.ndarray) -> Tensor:
        """Bin of the nearest key-sweep point in every feature cell."""
        height, width = (side // STRIDE for side in self.config.image.size)
        to_cells = np.diag([1 / STRIDE, 1 / STRIDE, 1.0, 1.0])
        nearest = np.zeros((*posts.shape[:2], height, width), np.float32)
        for i, sample in enumerate(samples):
            points = self.depth.read(int(sample))
            for camera in range(posts.shape[1]):
                u, v, depth = points.camera(camera, sweeps=0)
                nearest[i, camera] = depth_map(u, v, depth, to_cells @ posts[i, camera], (height, width))
        return self.bins.labels(torch.from_numpy(nearest))


def camera_to_ego(index: Index, sample: int) -> np.ndarray:
    """(N, 4, 4): each camera at its own time -> the ego at the key sweep's time, where the detector's boxes live."""
    return inverse(index.lidar_ego_to_global[sample]) @ index.camera_ego_to_global[sample] @ index.camera_to_ego[sample]


def _float(matrix: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(matrix)).float()
