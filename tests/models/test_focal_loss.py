"""Focal losses against their formulas, element by element, and against mmdet's."""

import math

import pytest
import torch
from torch.nn import functional as F

import models.openmmlab  # noqa: F401  (before mmdet: it may stand in for mmcv's operators)
from models.focal_loss import focal_loss, heatmap_loss


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [2.0, 1.5])
def test_focal_loss_is_its_formula(dtype, alpha, gamma):
    logits = torch.tensor([-3.0, -0.2, 0.0, 1.5, 40.0, -40.0])
    targets = torch.tensor([1, 0, 1, 0, 1, 1])
    found = focal_loss(logits, targets.to(dtype), alpha, gamma).tolist()
    for loss, logit, target in zip(found, logits.tolist(), targets.tolist()):
        p = 1 / (1 + math.exp(-logit if target else logit))  # of the right answer
        balance = 1 if alpha is None else alpha if target else 1 - alpha
        assert math.isclose(loss, -balance * (1 - p) ** gamma * math.log(p), rel_tol=1e-4, abs_tol=1e-7)


def test_focal_loss_is_mmdets():
    from mmdet.models.losses import FocalLoss

    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 10, generator=generator), torch.randint(0, 11, (50,), generator=generator)
    wanted = FocalLoss(use_sigmoid=True)(logits, labels, avg_factor=1)
    torch.testing.assert_close(focal_loss(logits, F.one_hot(labels, 11)[:, :10], alpha=0.25).sum(), wanted)


def heatmap(generator: torch.Generator) -> torch.Tensor:
    """(2, 3, 6, 5) with four centres."""
    targets = torch.rand(2, 3, 6, 5, generator=generator) * 0.98
    targets.view(-1)[[3, 50, 90, 177]] = 1
    return targets


@pytest.mark.parametrize("clamp", [None, 1e-4, 0.05])
def test_heatmap_loss_is_its_formula(clamp):
    generator = torch.Generator().manual_seed(0)
    targets = heatmap(generator)
    logits = (4 * torch.randn(targets.shape, generator=generator)).requires_grad_()
    total, low = 0.0, clamp or 0.0
    for logit, target in zip(logits.flatten().tolist(), targets.flatten().tolist()):
        p = min(max(1 / (1 + math.exp(-logit)), low), 1 - low)
        total += -((1 - p) ** 2) * math.log(p) if target == 1 else -((1 - target) ** 4) * p**2 * math.log(1 - p)
    found = heatmap_loss(logits, targets, clamp)
    assert math.isclose(found.item(), total / 4, rel_tol=1e-5)
    found.backward()
    sure = (logits.sigmoid() < low) | (logits.sigmoid() > 1 - low)
    assert not logits.grad[sure].any()
    assert logits.grad[~sure].all()


def test_heatmap_loss_is_mmdets():
    from mmdet.models.losses import GaussianFocalLoss

    generator = torch.Generator().manual_seed(0)
    targets = heatmap(generator)
    logits = 2 * torch.randn(targets.shape, generator=generator)
    wanted = GaussianFocalLoss()(logits.sigmoid().clip(1e-4, 1 - 1e-4), targets, avg_factor=4)
    for clamp in (None, 1e-4):
        torch.testing.assert_close(heatmap_loss(logits, targets, clamp), wanted)


def test_a_heatmap_without_a_centre():
    targets = torch.full((1, 1, 2, 2), 0.5)
    assert heatmap_loss(torch.zeros(1, 1, 2, 2), targets).item() == pytest.approx(4 * 0.25 * math.log(2) / 16)
