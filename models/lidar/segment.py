"""Sums of rows by segment: the one reduction that voxelisation and sparse convolution need."""

import torch.nn.functional as F
from torch import Tensor


def segment_sum(rows: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """(S, C): segment s is the sum of `rows[order[starts[s] : starts[s + 1]]]`, an empty segment zero.

    rows (R, C); order (M,) into rows and starts (S,) ascending into order, both int32 or both int64. Each segment is
    summed by one worker in the given order, so the result does not vary from run to run, on CPU or CUDA; `index_add_`
    on CUDA does, and on a CPU it is several times slower. Half precision is summed in float32 and rounded once.
    """
    if len(starts) == 0 or len(order) == 0:
        return rows.new_zeros(len(starts), rows.shape[1])
    return F.embedding_bag(order, rows, starts, mode="sum")
