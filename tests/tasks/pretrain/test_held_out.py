"""What evaluation reports, against loops over made-up samples: with a model that knows the answers, and a real one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from geomim_configs import changed
from made_up_batches import CHANNELS, CONFIG, SIDE, TRAIN, VAL, VIEWS, MadeUpBatches
from models.depth_bins import DepthBins
from models.geomim.model import GeoMIM, Reconstruction
from models.geomim.target import normalise_patches
from tasks.pretrain.geomim.baseline import labelled_depth, median_depth
from tasks.pretrain.geomim.held_out import DEPTH_RANGES, HeldOut, far_apart, frozen_bev
from tasks.pretrain.geomim.model import build_model
from tasks.pretrain.probe import Probe, ProbedGrid
from tasks.pretrain.samples import spread

CPU = torch.device("cpu")
NO_PROBE = changed(CONFIG, probe_samples=0).method


class Oracle(nn.Module):
    """Knows the target of the sample that it is shown, and is off by one in its second half; says 10 to 11 m."""

    patch = CONFIG.method.patch
    view_transform = SimpleNamespace(bins=DepthBins(*CONFIG.method.depth_bins))

    def __init__(self, batches: MadeUpBatches):
        super().__init__()
        self.batches = batches
        self.known = [batches.held_out(np.array([s])).normalised_images() for s in range(len(batches.images))]
        self.shown: list[int] = []

    def geometry(self, cameras, image_size):
        assert image_size == CONFIG.image.size
        return cameras

    def reconstruct(self, images, cameras, groups):
        self.shown += [s for s, known in enumerate(self.known) if torch.equal(known, images)]
        target = normalise_patches(self.batches.maps[self.shown[-1:]].float(), self.patch)
        depth = torch.zeros(2, 1, VIEWS, 48, 4, 6)
        depth[:, :, :, 9] = 1
        return Reconstruction(torch.stack([target, target + 1]), depth)


def test_errors_of_a_model_that_knows():
    batches = MadeUpBatches()
    model = Oracle(batches).train()
    got = HeldOut(batches, NO_PROBE, VAL, TRAIN, CPU).evaluate(model)
    assert model.training
    assert sorted(model.shown) == VAL.tolist()

    targets = [normalise_patches(m[None].float(), 4)[0] for m in batches.maps]
    active = [(m != 0).any(0) for m in batches.maps]
    mean_map = torch.stack([targets[s] for s in TRAIN]).mean(0)
    before = {s: model.shown[i - 1] for i, s in enumerate(model.shown)}  # whose images a sample is judged with
    answers = {
        "reconstruction": lambda s: [targets[s], targets[s] + 1],
        "zero": lambda s: [torch.zeros_like(targets[s])],
        "mean_map": lambda s: [mean_map],
        "shuffled": lambda s: [targets[before[s]], targets[before[s]] + 1],
    }
    for name, guesses in answers.items():
        everywhere, where_active = [], []
        for s in VAL:
            for guess in guesses(s):
                squared = (guess - targets[s]) ** 2
                everywhere += squared.flatten().tolist()
                where_active += squared[:, active[s]].flatten().tolist()
        assert got[f"{name}"] == pytest.approx(np.mean(everywhere), rel=1e-5)
        place = "active" if name == "reconstruction" else f"active_{name}"
        assert got[f"{place}"] == pytest.approx(np.mean(where_active), rel=1e-5)
    assert got["reconstruction"] == pytest.approx(0.5)


def test_depth_errors():
    batches = MadeUpBatches()
    held_out = HeldOut(batches, NO_PROBE, VAL, TRAIN, CPU)
    got = held_out.evaluate(Oracle(batches))
    errors, close, blind = [], [], []
    for s in VAL:
        for view in range(VIEWS):
            for i in range(4):
                for j in range(6):
                    nearest = float(batches.depths[s, view, i, j])
                    if 1 <= nearest < 49:
                        errors.append((nearest, abs(nearest - 10.5)))
                        close.append((nearest, max(nearest / 10.5, 10.5 / nearest) < 1.25))
                        blind.append(abs(float(held_out.blind.depth[view, i, j]) - nearest))
    assert got["depth"] == pytest.approx(np.mean([e for _, e in errors]), rel=1e-5)
    assert got["delta1"] == pytest.approx(np.mean([c for _, c in close]), rel=1e-5)
    assert got["depth_blind"] == pytest.approx(np.mean(blind), rel=1e-5)
    for low, high in DEPTH_RANGES:
        for name, rows in (("depth", errors), ("delta1", close)):
            inside = [value for depth, value in rows if low <= depth < high]
            assert len(inside) > 3
            assert got[f"{name}_{low}_{high}"] == pytest.approx(np.mean(inside), rel=1e-5)


def test_nothing_is_said_of_depths_that_no_point_has():
    batches = MadeUpBatches()
    batches.depths[:] = 0
    got = HeldOut(batches, NO_PROBE, VAL[:1], TRAIN, CPU).evaluate(Oracle(batches))
    assert not any("depth" in name or "delta1" in name or "shuffled" in name for name in got)
    assert "zero" in got


def test_the_median_of_what_is_known():
    depths = torch.zeros(3, 1, 2, 2)
    depths[:, 0, 0, 0] = torch.tensor([5.0, 0.0, 9.0])
    depths[:, 0, 0, 1] = torch.tensor([1.0, 2.0, 30.0])
    assert median_depth(depths)[0].tolist() == [[5.0, 2.0], [5.0, 5.0]]
    assert median_depth(torch.zeros(2, 1, 1, 1)).tolist() == [[[0.0]]]


def test_labelled_depths_are_those_of_the_bins():
    depth_map = torch.tensor([[5.0, 60.0, 0.0]])
    assert labelled_depth(depth_map, DepthBins(1, 49, 1)).tolist() == [[5.0, 0.0, 0.0]]


@pytest.mark.parametrize("count", range(1, 8))
def test_neighbours_in_order_are_far_apart(count):
    samples = np.arange(10, 10 + count)
    order = far_apart(samples)
    assert sorted(order) == samples.tolist()
    if count > 4:
        assert np.abs(np.diff(order))[:-1].min() >= count // 2 - 1


def test_spread():
    assert spread(np.arange(10, 20), 3).tolist() == [10, 14, 19]
    assert spread(np.arange(3), 9).tolist() == [0, 1, 2]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(GeoMIM, CONFIG, CONFIG.method, CHANNELS, (-8.0, -8.0, -5.0, 8.0, 8.0, 3.0), 1.0)


def test_the_frozen_bev_is_what_the_head_gets(model):
    batch = MadeUpBatches().held_out(np.array([2]))
    seen = []
    handle = model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    cameras = model.geometry(batch.cameras, CONFIG.image.size)
    model.eval()(batch.normalised_images(), cameras, torch.zeros_like(batch.groups))
    handle.remove()
    torch.testing.assert_close(frozen_bev(model.train(), batch), seen[0])
    assert model.training


def test_evaluation_of_a_real_model_repeats_and_changes_nothing(model):
    batches = MadeUpBatches()
    held_out = HeldOut(batches, CONFIG.method, VAL, TRAIN, CPU)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, again = held_out.evaluate(model), held_out.evaluate(model)
    assert first == again
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(np.isfinite(value) for value in first.values())
    for name in ("prior_ap", "prior_iou", "probe_ap", "probe_iou"):
        assert 0 <= first[f"{name}"] < 1


class Giveaway(Probe):
    """A BEV one of whose channels has the boxes in it, beneath some noise."""

    def _cells(self, model, sample):
        noise = torch.randn(SIDE * SIDE, 3, generator=torch.Generator().manual_seed(int(sample)), dtype=torch.float64)
        noise[:, 1] += 9 * self._occupied(sample)
        return noise


def test_a_bev_that_shows_the_boxes_beats_one_that_is_not_looked_at(model):
    batches = MadeUpBatches()
    grid = ProbedGrid(batches.bev.attributes.point_range[:2], batches.bev.attributes.cell_size[0], (SIDE, SIDE))
    probe = Giveaway(None, batches.index, grid, CONFIG.method.probe_samples, TRAIN, VAL)
    got = probe.evaluate(model)
    assert got["probe_ap"] > 0.98
    assert got["probe_iou"] > 0.8
    occupied = [probe._occupied(s).tolist() for s in range(len(TRAIN) + len(VAL))]
    frequency = np.mean([occupied[s] for s in TRAIN], 0)
    rows = [(f, cell) for s in VAL for f, cell in zip(frequency, occupied[s])]
    area = recall = 0.0
    for threshold in sorted(set(frequency), reverse=True):
        chosen = [cell for f, cell in rows if f >= threshold]
        area += (sum(chosen) / sum(cell for _, cell in rows) - recall) * sum(chosen) / len(chosen)
        recall = sum(chosen) / sum(cell for _, cell in rows)
    assert got["prior_ap"] == pytest.approx(area)

    def overlap_at(threshold, samples):
        pairs = [(f >= threshold, cell) for s in samples for f, cell in zip(frequency, occupied[s])]
        return sum(a and b for a, b in pairs) / sum(a or b for a, b in pairs)

    best = max(set(frequency), key=lambda threshold: overlap_at(threshold, TRAIN))
    assert got["prior_iou"] == pytest.approx(overlap_at(best, VAL))


def test_no_probe_without_boxes(model):
    batches = MadeUpBatches()
    batches.index.box_label[:] = -1
    assert not any("probe" in name for name in HeldOut(batches, CONFIG.method, VAL, TRAIN, CPU).evaluate(model))
