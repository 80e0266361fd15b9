"""Colours of BEV features, and the picture as a whole on made-up samples."""

import numpy as np
import pytest
import torch
from PIL import Image

from geomim_configs import changed as altered
from made_up_batches import CHANNELS, CONFIG, TRAIN, VAL, MadeUpBatches
from models.geomim.model import GeoMIM
from pictures.features import PrincipalColours
from tasks.pretrain.geomim.held_out import HeldOut
from tasks.pretrain.geomim.model import build_model
from tasks.pretrain.geomim.picture import COLOURS_FILE, cells_of, draw_picture, kept_colours


def some_map(channels: int, seed: int = 0) -> torch.Tensor:
    """(C, 6, 8), its channels correlated and of different size."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator)
    return (mixing @ torch.randn(channels, 48, generator=generator)).view(channels, 6, 8) + 3


@pytest.mark.parametrize("channels", [1, 2, 3, 9])
def test_colours_are_principal_components(channels):
    bev = some_map(channels)
    colours = PrincipalColours.of(cells_of(bev).reshape(-1, channels))
    cells = bev.flatten(1).T.double().numpy()
    _, singular, directions = np.linalg.svd(cells - cells.mean(0))
    expected = np.full((6, 8, 3), 0.5)
    for k in range(min(3, channels)):
        direction = directions[k] * np.sign(directions[k][np.abs(directions[k]).argmax()])
        along = (cells - cells.mean(0)) @ direction / (2.5 * singular[k] / np.sqrt(len(cells) - 1))
        expected[..., k] = (along / 2 + 0.5).clip(0, 1).reshape(6, 8)
    np.testing.assert_allclose(colours(cells_of(bev)), expected, atol=1e-5)


def test_colours_once_kept_stay(tmp_path):
    first = kept_colours(tmp_path / "colours.npz", some_map(4))
    later = kept_colours(tmp_path / "colours.npz", some_map(4, seed=1))
    other = kept_colours(tmp_path / "other.npz", some_map(4, seed=1))
    for a, b, c in zip(*(vars(colours).values() for colours in (first, later, other))):
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)


def test_a_map_without_features_is_grey():
    assert (PrincipalColours.of(np.zeros((25, 4)))(np.zeros((5, 5, 4))) == 0.5).all()


def test_pictures_of_two_steps(tmp_path):
    batches = MadeUpBatches()
    held_out = HeldOut(batches, altered(CONFIG, probe_samples=0).method, VAL, TRAIN, torch.device("cpu"))
    shape = CHANNELS, (-8.0, -8.0, -5.0, 8.0, 8.0, 3.0), 1.0
    pictures = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = build_model(GeoMIM, CONFIG, CONFIG.method, *shape)
        draw_picture(tmp_path / f"{seed}.png", model, held_out, VAL[:1])
        pictures.append(np.asarray(Image.open(tmp_path / f"{seed}.png").convert("RGB")).astype(int))
        assert model.training
    assert (tmp_path / COLOURS_FILE).is_file()
    assert pictures[0].shape == pictures[1].shape
    changed = (pictures[0] != pictures[1]).any(-1).mean()
    assert 0.01 < changed < 0.6  # what the model says, but neither images nor targets
