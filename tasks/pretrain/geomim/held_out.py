"""How well the network does on samples that it does not learn from, and how well one does that sees nothing.

What `HeldOut.evaluate` reports:

reconstruction               mean squared error of the normalised BEV, mean of the two halves, over all cells
zero, mean_map               the same of the answers 0 (the mean of a normalised target) and `baseline.Blind`
shuffled                     the same of the network given another sample's images: where it is no worse than
                             `reconstruction`, the network ignores what it sees
active, active_zero, ...     the four, over the cells where the teacher saw something: a third of the map or less, and
                             nearly all that there is to get right
depth, depth_blind           mean absolute error (m) of the expected depth, and of `baseline.Blind`
depth_0_15, ...              the first, by the LiDAR's range (m)
delta1, delta1_0_15, ...     share of depths within a factor 1.25
probe_...                    see tasks/pretrain/probe.py; of the BEV that the prediction head gets
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from batches.geomim import GeoMIMBatch, GeoMIMBatches
from models.depth_bins import DepthBins
from models.geomim.model import GeoMIM, Reconstruction
from models.geomim.target import normalise_patches
from tasks.pretrain.frozen import frozen
from tasks.pretrain.geomim.baseline import blind_answers, labelled_depth
from tasks.pretrain.methods.geomim import Config
from tasks.pretrain.probe import Probe, ProbedGrid
from tasks.pretrain.samples import DEPTH_RANGES, far_apart

DELTA1 = 1.25


class HeldOut:
    """Evaluation on fixed samples with fixed masks, against what can be said without looking.

    samples: to evaluate on. train: to take the blind answers and the linear probe from.
    """

    def __init__(
        self, batches: GeoMIMBatches, config: Config, samples: np.ndarray, train: np.ndarray, device: torch.device
    ):
        self.batches, self.samples, self.device = batches, samples, device
        self.blind = blind_answers(batches, config, train)
        grid = batches.bev.attributes
        x, y = grid.point_range[:2]
        probed = ProbedGrid((x, y), grid.cell_size[0], batches.bev.shape[1:])
        most = config.probe_samples
        self.probe = Probe(self._features, batches.index, probed, most, train, samples) if most else None

    def evaluate(self, model: GeoMIM) -> dict[str, float]:
        """The metrics above; those of which nothing can be said (depths at a range where none is) are left out."""
        bev, depth = BevErrors(), DepthErrors(model.view_transform.bins)
        blind_bev, blind_depth = (answer.to(self.device) for answer in self.blind)
        first: tuple[Tensor, Tensor] | None = None
        previous: Tensor | None = None
        for batch, made in self.predictions(model, far_apart(self.samples)):
            lidar_bev = batch.lidar_bev()
            seen = normalise_patches(lidar_bev.float(), model.patch), (lidar_bev != 0).any(1)
            bev.add("", made.bev, *seen)
            bev.add("zero", torch.zeros_like(made.bev), *seen)
            bev.add("mean_map", blind_bev, *seen)
            if previous is not None:
                bev.add("shuffled", previous, *seen)
            first, previous = first or seen, made.bev
            depth.add(made.depth_prob[:, 0], blind_depth, batch.depth_map[0])
        if first is not None and previous is not None and len(self.samples) > 1:
            bev.add("shuffled", previous, *first)
        return bev.metrics() | depth.metrics() | (self.probe.evaluate(model) if self.probe else {})

    def _features(self, model: GeoMIM, sample: int) -> Tensor:
        return frozen_bev(model, self.batches.held_out(np.array([sample])).to(self.device))[0]

    @torch.no_grad()
    def predictions(
        self, model: GeoMIM, samples: np.ndarray | None = None
    ) -> Iterator[tuple[GeoMIMBatch, Reconstruction]]:
        """(batch of one, reconstruction) of the held-out samples, or of `samples`; `model` is left as it was."""
        training = model.training
        model.eval()
        try:
            for sample in self.samples if samples is None else samples:
                batch = self.batches.held_out(np.array([sample])).to(self.device)
                cameras = model.geometry(batch.cameras, self.batches.image_size)
                yield batch, model.reconstruct(batch.normalised_images(), cameras, batch.groups)
        finally:
            model.train(training)


class BevErrors:
    """Squared errors of several answers, summed over all cells and over the active ones."""

    def __init__(self) -> None:
        # Over all cells, over active ones.
        self._sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(2, dtype=torch.float64))
        self._cells: dict[str, Tensor] = defaultdict(lambda: torch.zeros(2, dtype=torch.float64))

    def add(self, name: str, bev: Tensor, target: Tensor, active: Tensor) -> None:
        """bev: (..., 1, C, X, Y), any number of guesses at the target (1, C, X, Y); active: (1, X, Y) bool."""
        squared = (bev.float() - target).square().flatten(0, -4).mean((0, 1))  # (X, Y)
        chosen = squared[active[0]]
        self._sums[name] += torch.stack([squared.sum(dtype=torch.float64), chosen.sum(dtype=torch.float64)]).cpu()
        self._cells[name] += torch.tensor([squared.numel(), chosen.numel()])

    def metrics(self) -> dict[str, float]:
        """`reconstruction` and `active` for the answer called "", else `NAME` and `active_NAME`."""
        metrics = {}
        for place, prefix, nameless in ((0, "", "reconstruction"), (1, "active_", "active")):
            for name, sums in self._sums.items():
                cells = self._cells[name][place].clamp(min=1)
                metrics[prefix + name if name else nameless] = float(sums[place] / cells)
        return metrics


class DepthErrors:
    """Expected depths and the LiDAR's nearest, in every block of pixels where there is one."""

    def __init__(self, bins: DepthBins):
        self._bins = bins
        self._rows: list[Tensor] = []

    def add(self, depth_prob: Tensor, blind: Tensor, depth_map: Tensor) -> None:
        """depth_prob: (2, N, D, h, w); blind: (N, h, w) m; depth_map: (N, h, w) m."""
        centres = self._bins.edges().to(depth_prob) + self._bins.step / 2
        expected = (depth_prob.float() * centres[:, None, None]).sum(2)
        nearest = labelled_depth(depth_map, self._bins)
        rows = torch.stack([*expected, blind, nearest], -1)[nearest > 0]
        self._rows.append(rows.float().cpu())

    def metrics(self) -> dict[str, float]:
        """`depth`, `depth_blind` and `delta1`, the first and the last by range as well; nothing without a label."""
        rows = torch.cat(self._rows)
        expected, blind, nearest = rows[:, :2], rows[:, 2], rows[:, 3:]
        if len(nearest) == 0:
            return {}
        error = (expected - nearest).abs().mean(1)
        close = (torch.maximum(expected / nearest, nearest / expected) < DELTA1).float().mean(1)
        metrics = {
            "depth": float(error.mean()),
            "depth_blind": float((blind - nearest[:, 0]).abs().mean()),
            "delta1": float(close.mean()),
        }
        for low, high in DEPTH_RANGES:
            inside = (nearest[:, 0] >= low) & (nearest[:, 0] < high)
            if inside.any():
                metrics[f"depth_{low}_{high}"] = float(error[inside].mean())
                metrics[f"delta1_{low}_{high}"] = float(close[inside].mean())
        return metrics


def frozen_bev(model: GeoMIM, batch: GeoMIMBatch) -> Tensor:
    """(B, context, X, Y): what the prediction head gets where the first half is the whole image."""
    images = batch.normalised_images()
    cameras = model.geometry(batch.cameras, (images.shape[-2], images.shape[-1]))
    with frozen(model):
        maps = model.decode(images, cameras.vector, torch.zeros_like(batch.groups), halves=(0,))
        semantic, geometry = (part.unflatten(0, images.shape[:2]) for part in maps)
        bev, _ = model.view_transform(semantic, geometry, cameras.plan)
    return bev
