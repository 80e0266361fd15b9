"""The effective rank of features, against the eigenvalues of their correlations."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batches.images import draws_of, load_images, normalise
from made_up_batches import CONFIG
from models.backbones.build import build_backbone
from tasks.pretrain.feature_rank import effective_rank, feature_rank


def sums_of(features: torch.Tensor) -> torch.Tensor:
    ones = torch.cat([features, torch.ones(len(features), 1)], 1).double()
    return ones.T @ ones


@given(seed=st.integers(0, 2**31), channels=st.integers(2, 8), scale=st.floats(1e-2, 1e2), shift=st.floats(-10, 10))
def test_is_that_of_the_correlations(seed, channels, scale, shift):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(60, channels)) @ generator.normal(size=(channels, channels)) * scale + shift
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(features.T))
    expected = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    assert effective_rank(sums_of(torch.from_numpy(features))) == pytest.approx(expected, rel=1e-6)
    assert 1 - 1e-9 <= expected <= channels + 1e-9


def test_features_that_all_follow_one_and_features_that_do_not():
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    assert effective_rank(sums_of(one * torch.tensor([[1.0, -2.0, 0.5, 30.0]]))) == pytest.approx(1)
    assert effective_rank(sums_of(torch.randn(4000, 4, generator=generator, dtype=torch.float64))) > 3.9


def test_a_feature_that_never_changes_counts_for_nothing():
    features = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    still = torch.full((50, 2), 7.3, dtype=torch.float64)
    assert effective_rank(sums_of(torch.cat([features, still], 1))) == pytest.approx(effective_rank(sums_of(features)))
    assert effective_rank(sums_of(still)) == 0


def test_of_a_backbone(tmp_path):
    """Over all samples at once, not their mean; the backbone stays in training."""
    torch.manual_seed(0)
    backbone, generator = build_backbone(CONFIG.backbone).train(), np.random.default_rng(0)
    paths = np.array([[f"{sample}-{view}.jpg" for view in range(2)] for sample in range(3)])
    for path in paths.flat:
        Image.fromarray(generator.integers(0, 256, (64, 96, 3), np.uint8)).save(tmp_path / path)
    index = SimpleNamespace(camera_path=paths, image_size=np.full((3, 2, 2), (96, 64)), token=np.array(["a", "b", "c"]))
    got = feature_rank(backbone, CONFIG.image, index, tmp_path, np.arange(3))
    assert backbone.training
    draws = [draws_of(index, s, CONFIG.image) for s in range(3)]
    images = [load_images(index, tmp_path, s, draws[s], CONFIG.image.size) for s in range(3)]
    images = torch.from_numpy(np.concatenate(images))
    features = backbone.eval()(normalise(images))[2].detach().permute(1, 0, 2, 3).flatten(1)
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(features.double().numpy()))
    assert got == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=1e-3)
