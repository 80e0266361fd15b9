"""What a detector makes of many samples, shared among the ranks."""

from collections.abc import Iterator

import numpy as np
import torch

from batches.detector import Batches
from common.progress import progress
from models.bevdet.detector import BevDet
from tasks.finetune.config import FinetuneConfig
from tasks.finetune.goals.goal import SampleResult
from training.prefetch import Prefetcher, choose_loaders
from training.ranks import rank, rank_count
from training.speed import autocast, products

MOST_AT_ONCE = 8  # samples a rank; no more than it trains on at once


def detect(detector: BevDet, config: FinetuneConfig, batches: Batches, samples: np.ndarray) -> Iterator[SampleResult]:
    """The head's predictions of this rank's share of the samples, nothing random. Maps come as arrays.

    The detector is left in evaluation mode.
    """
    device = next(detector.parameters()).device
    own = samples[rank() :: rank_count()]
    size = min(MOST_AT_ONCE, max(1, config.batch_size // (config.accumulate * rank_count())))
    chunks = [own[i : i + size] for i in range(0, len(own), size)]
    loaders = choose_loaders(config.loaders, device, rank_count())
    detector.eval()
    with Prefetcher(lambda chunk: batches.evaluation(chunks[chunk]), range(len(chunks)), loaders, loaders) as loaded:
        for batch in progress(loaded, "finetune: detect", total=len(chunks), unit="batches") if rank() == 0 else loaded:
            moved = batch.to(device)
            with torch.inference_mode(), products(config.precision), autocast(config.precision, device):
                bev, _ = detector(moved.normalised(), detector.geometry(moved.cameras))
                made = detector.head.predict(detector.head(bev))
            predicted = made.cpu().numpy() if isinstance(made, torch.Tensor) else made
            for place, sample in enumerate(batch.samples.tolist()):
                yield SampleResult(sample, predicted[place], tuple(truth[place].numpy() for truth in batch.truth))
