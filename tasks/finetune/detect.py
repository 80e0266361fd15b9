"""A detector's boxes of many samples, shared among the ranks."""

import numpy as np
import torch

from models.bevdet.detector import BevDet
from models.boxes import Boxes
from models.geometry import inverse
from tasks.finetune.batches import Batches
from tasks.finetune.frames import lidar_to_key_ego
from tasks.progress import progress
from tasks.training.prefetch import Prefetcher, choose_loaders
from tasks.training.ranks import gathered, rank, rank_count

MOST_AT_ONCE = 8  # samples a rank; no more than it trains on at once


def detect(detector: BevDet, batches: Batches, samples: np.ndarray) -> dict[int, Boxes]:
    """The boxes of each sample, in its LIDAR_TOP frame, best first. Called on all ranks, which share the samples.

    The detector is left in evaluation mode.
    """
    config, index = batches.config, batches.index
    device = next(detector.parameters()).device
    own = samples[rank() :: rank_count()]
    size = min(MOST_AT_ONCE, max(1, config.batch_size // (config.accumulate * rank_count())))
    chunks = [own[i : i + size] for i in range(0, len(own), size)]
    loaders = choose_loaders(config.loaders, device, rank_count())
    found = {}
    detector.eval()
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"),
        Prefetcher(lambda chunk: batches.evaluation(chunks[chunk]), range(len(chunks)), loaders, loaders) as loaded,
    ):
        for batch in progress(loaded, "finetune: detect", total=len(chunks), unit="batches") if rank() == 0 else loaded:
            batch = batch.to(device)
            bev, _ = detector(batch.normalised(), batch.cameras)
            for sample, boxes in zip(batch.samples.tolist(), detector.head.predict(detector.head(bev))):
                found[sample] = boxes.moved(inverse(lidar_to_key_ego(index, sample, config.view.key_ego)))
    return {sample: boxes for share in gathered(found) for sample, boxes in share.items()}
