"""Stage `teacher`: BEV features of every sample -> `bev.zarr`, part by part."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.lidar.detector import VoxelBatch, voxel_batch
from models.lidar.encoder import SparseEncoder
from storage.bev import BevAttributes, BevWriter
from storage.index import Index
from tasks.batches.points import load_points
from tasks.errors import UserError
from tasks.progress import progress
from tasks.teacher.config import TeacherConfig
from tasks.teacher.fit import WEIGHTS
from tasks.teacher.network import build_encoder
from tasks.teacher.weights import fill_encoder
from tasks.training.device import choose_device, threads

STORE = "bev.zarr"


def run(config: TeacherConfig, inputs: Any, artifact: Any) -> dict[str, Any]:
    """Write the parts that are not done. The summary says what share of the cells is active and how big a sample is."""
    index = Index.open(inputs["ingest"].path / "index.zarr")
    lidar = config.lidar
    writer = BevWriter(
        artifact.path / STORE,
        index.token,
        (lidar.bev_channels, *lidar.bev_shape),
        BevAttributes(lidar.range, lidar.cell_size, config.part_size),
    )
    pending = writer.parts.pending()
    samples = [sample for part in pending for sample in writer.samples(part)]
    device = choose_device(config.device)
    with threads(config.threads), torch.inference_mode():
        encoder = _encoder(config, inputs).to(device).eval()

        def load(sample: int) -> VoxelBatch:
            points = load_points(index, inputs.dataroot, sample, lidar.sweeps)
            return voxel_batch([torch.from_numpy(points)], lidar.grid)

        if config.weights == "random" and samples:
            _normalise(encoder, load(0).to(device))
        # Files are read and voxelised one sample ahead of the network.
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(load, samples[0]) if samples else None
            maps: list[np.ndarray] = []
            part = iter(pending)
            count = len(index)
            for i, sample in enumerate(progress(samples, "teacher", count, "samples", count - len(samples))):
                voxels = coming.result()
                if i + 1 < len(samples):
                    coming = ahead.submit(load, samples[i + 1])
                maps.append(_features(encoder, voxels.to(device), str(index.token[sample])))
                if len(maps) == writer.part_size or sample == len(index) - 1:
                    writer.write(next(part), np.stack(maps))
                    maps.clear()
    return {"samples": len(index), "shape": [lidar.bev_channels, *lidar.bev_shape], "weights": _kind(config)}


def _normalise(encoder: SparseEncoder, voxels: VoxelBatch) -> None:
    """Give random weights one sample's batch-norm statistics; without, features grow by layer, past float16's range."""
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = 1.0
    encoder.train()
    encoder(*voxels)
    encoder.eval()


def _features(encoder: SparseEncoder, voxels: VoxelBatch, token: str) -> np.ndarray:
    """(C, X, Y) float32 of one sample."""
    bev = encoder(*voxels)[0].float().cpu().numpy()
    largest = float(np.abs(bev).max(initial=0))
    if not largest <= np.finfo(np.float16).max:
        raise UserError(
            f"teacher: the features of sample {token} reach {largest:g}, beyond what is cached (float16); "
            "the weights do not fit these points"
        )
    return bev


def _encoder(config: TeacherConfig, inputs: Any) -> SparseEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = build_encoder(config.lidar)
    if config.weights != "random":
        fill_encoder(encoder, inputs["fit"].path / WEIGHTS if config.weights == "fit" else Path(config.weights))
    return encoder


def _kind(config: TeacherConfig) -> str:
    return config.weights if config.weights in ("fit", "random") else "checkpoint"
