"""GeoMIM on its inputs: the index's images, the teacher's BEV and LiDAR depth."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from batches.geomim import GeoMIMBatch, GeoMIMBatches
from batches.masked import MaskedImages
from common.errors import UserError
from models.depth_bins import NO_LABEL
from models.geomim.model import GeoMIM, Reconstruction
from storage.bev import BevReader
from storage.depth import DepthReader
from storage.index import Index
from tasks.engine.stage import Inputs
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.geomim.held_out import HeldOut
from tasks.pretrain.geomim.model import AnyGeoMIM, Make, build_model
from tasks.pretrain.geomim.picture import COLOURS_FILE, draw_picture
from tasks.pretrain.geomim.public import check_public
from tasks.pretrain.methods.geomim import Config
from tasks.pretrain.samples import PICTURED
from training.speed import autocast
from training.task import Term


class GeoMIMPretraining:
    """A `tasks.pretrain.method.Method`."""

    def __init__(self, config: PretrainConfig, method: Config, inputs: Inputs, index: Index):
        self.config, self.method = config, method
        bev = BevReader(inputs["teacher"].path / "bev.zarr")
        depth = DepthReader(inputs["depth"].path / "depth.zarr")
        self._check(index, bev, depth)
        masked = MaskedImages(config, self.method, index, inputs.dataroot)
        self.batches = GeoMIMBatches(masked, self.method, bev, depth)

    def build(self) -> GeoMIM:
        return self.built(GeoMIM)

    def built(self, make: Make[AnyGeoMIM]) -> AnyGeoMIM:
        """The same of `make`: a GeoMIM with more to it, say."""
        channels, bev = self.batches.bev.shape[0], self.batches.bev.attributes
        model = build_model(make, self.config, self.method, channels, bev.point_range, bev.cell_size[0])
        for unused in (model.view_transform.downsample, model.head):
            unused.requires_grad_(self.method.reconstruction_weight > 0)  # ranks wait for whatever asks for a gradient
        if self.method.public_config:
            check_public(self.config, self.method, model)
        return model

    def batch(self, positions: range, samples: np.ndarray) -> GeoMIMBatch:
        return self.batches.training_at(positions, samples)

    def counts(self, model: GeoMIM, batch: GeoMIMBatch) -> dict[str, Tensor]:
        """Depth is averaged over the cells that LiDAR hit; all parts have as many BEV cells."""
        labels = model.view_transform.bins.labels(batch.depth_map)
        return {"depth": (labels != NO_LABEL).sum()}

    def terms(self, model: GeoMIM, network: torch.nn.Module, batch: GeoMIMBatch) -> list[Term]:
        cameras = model.geometry(batch.cameras, self.config.image.size)
        with autocast(self.config.precision, batch.images.device):
            reconstruction = network(batch.normalised_images(), cameras, batch.groups)
        return self.terms_of(model, reconstruction, batch)

    def terms_of(self, model: GeoMIM, reconstruction: Reconstruction, batch: GeoMIMBatch) -> list[Term]:
        """Of what the network made of a batch. Those of weight 0 are left out."""
        losses = model.losses(reconstruction, batch.lidar_bev(), batch.depth_map)
        terms = (
            Term("reconstruction", self.method.reconstruction_weight, losses.reconstruction),
            Term("depth", self.method.depth_weight, losses.depth),
        )
        return [term for term in terms if term.weight > 0]

    def evaluator(self, held_out: np.ndarray, train: np.ndarray, device: torch.device) -> "GeoMIMEvaluator":
        return GeoMIMEvaluator(self.batches, self.method, held_out, train, device)

    def _check(self, index: Index, bev: BevReader, depth: DepthReader) -> None:
        if list(index.token) != bev.tokens:
            raise UserError(f"{bev.path}: holds other samples than the index; run `geomim teacher --force` again")
        if depth.sweeps < self.method.depth_sweeps:
            wanted = f"pretrain.method.depth_sweeps is {self.method.depth_sweeps}"
            raise UserError(f"{wanted}, but depth.sweeps keeps only {depth.sweeps}")
        x_size, y_size = bev.attributes.cell_size
        if abs(x_size - y_size) > 1e-6:
            raise UserError(
                f"lidar.voxel_size gives BEV cells of {x_size:g} x {y_size:g} m; pretraining needs square ones"
            )
        low, high = bev.attributes.point_range[:2], bev.attributes.point_range[3:5]
        if self.method.bev_flip and any(abs(a + b) > 1e-6 for a, b in zip(low, high)):
            raise UserError(
                "pretrain.method.bev_flip needs a lidar.range that is symmetric about the LiDAR: set it to false"
            )


class GeoMIMEvaluator(HeldOut):
    """A `tasks.pretrain.method.Evaluator`."""

    def draw(self, model: GeoMIM, folder: Path) -> None:
        (folder / COLOURS_FILE).unlink(missing_ok=True)  # of an interrupted run: nothing vouches for it
        draw_picture(folder / "pretrain.png", model, self, self.samples[:PICTURED])
