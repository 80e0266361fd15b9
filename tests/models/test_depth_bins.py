import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.depth_bins import NO_LABEL, DepthBins, depth_loss


@given(st.sampled_from(["even", "log"]), st.floats(0.5, 5), st.integers(3, 60), st.floats(0.1, 80))
def test_a_label_is_the_last_edge_below(spacing, low, count, depth):
    bins = DepthBins(low, low + 2.0 * count, 2.0, spacing)
    edges = bins.edges()
    assert len(edges) == bins.count == count
    if (edges - depth).abs().min() < 1e-6:
        return  # on an edge, where rounding decides
    label = int(bins.labels(torch.tensor(depth, dtype=torch.float64)))
    upper = bins.high if spacing == "even" else math.inf
    if depth < edges[0] or depth >= upper:
        assert label == NO_LABEL
    elif spacing == "even" or depth < edges[-1]:
        assert label == int((edges <= depth).sum()) - 1


def test_no_depth_has_no_label():
    depths = torch.tensor([0.0, 0.99, 1.0, 1.49, 59.9, 60.0])
    assert DepthBins(1, 60, 0.5).labels(depths).tolist() == [-1, -1, 0, 0, 117, -1]


def test_depth_loss_is_the_slow_one():
    prob = torch.rand(2, 5, 3, 4).softmax(1)
    labels = torch.randint(-1, 5, (2, 3, 4))
    total, valid = 0.0, 0
    for b, i, j in np.ndindex(2, 3, 4):
        if labels[b, i, j] != NO_LABEL:
            valid += 1
            for k in range(5):
                p = float(prob[b, k, i, j])
                total -= math.log(p) if k == labels[b, i, j] else math.log(1 - p)
    assert float(depth_loss(prob, labels)) == pytest.approx(total / valid, rel=1e-5)
    assert float(depth_loss(prob, torch.full_like(labels, NO_LABEL))) == 0
    assert depth_loss(torch.full_like(prob, math.nan), labels).isnan()
