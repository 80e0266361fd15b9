import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import models.openmmlab  # noqa: F401  (before mmdet3d: it may stand in for mmcv's operators)
from models.boxes import Boxes
from models.lidar.box_code import PARTS, BoxCoder, Convention
from models.lidar.transfusion import SMALL_CLASSES, DecoderLayer, Predictions, TransFusionHead, TransFusionSpec
from models.lidar.transfusion_loss import draw_heatmap, match
from models.names import CLASSES
from models.rotated_iou import iou_3d

RANGE = (-16.0, -12.0, -5.0, 16.0, 12.0, 3.0)
CELL = (0.8, 1.0)  # neither the map nor its cells are square
SHAPE = (40, 24)
CODER = BoxCoder(RANGE[:2], CELL, Convention.MMDET3D)


def small_head(convention: Convention = Convention.MMDET3D, **settings) -> TransFusionHead:
    torch.manual_seed(0)
    sizes = {"queries": 30, "width": 16, "heads": 2, "ffn_width": 16} | settings
    return TransFusionHead(TransFusionSpec(8, RANGE, CELL, **sizes), convention)


def random_boxes(seed: int, count: int, spread: float = 10.0) -> Boxes:
    random = np.random.default_rng(seed)
    return Boxes(
        centers=random.uniform(-spread, spread, (count, 3)) * [1, 1, 0.1],
        sizes=random.uniform(0.3, 6, (count, 3)),
        yaws=random.uniform(-np.pi, np.pi, count),
        velocities=random.normal(size=(count, 2)),
        labels=random.integers(0, 10, count),
        scores=random.uniform(size=count),
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(Convention))
def test_codes_and_back(seed, convention):
    boxes = random_boxes(seed, 5)
    coder = BoxCoder((-54.0, -40.0), (0.6, 0.5), convention)
    back = coder.decode(coder.encode(boxes), boxes.labels, boxes.scores)
    np.testing.assert_allclose(back.centers, boxes.centers, atol=1e-9)
    np.testing.assert_allclose(back.sizes, boxes.sizes, atol=1e-9)
    np.testing.assert_allclose(np.exp(1j * back.yaws), np.exp(1j * boxes.yaws), atol=1e-9)
    np.testing.assert_array_equal(back.velocities, boxes.velocities)


def test_what_the_two_conventions_say():
    """A car 4 long, 2 wide, 1.5 high, heading along +x, its centre at z = -1."""
    car = Boxes(np.array([[0.6, 0.0, -1.0]]), np.array([[4.0, 2, 1.5]]), np.zeros(1), np.ones((1, 2)), np.zeros(1, int))
    cells, log = [91.0, 90.0], np.log
    says = {c: BoxCoder((-54.0, -54.0), (0.6, 0.6), c).encode(car)[0] for c in Convention}
    np.testing.assert_allclose(says[Convention.MMDET3D], [*cells, -1, log(4), log(2), log(1.5), 0, 1, 1, 1], atol=1e-9)
    np.testing.assert_allclose(says[Convention.MIT], [*cells, -0.25, log(2), log(4), log(1.5), -1, 0, 1, 1], atol=1e-9)


def test_classes_are_those_of_the_published_heads():
    published = "car truck construction_vehicle bus trailer barrier motorcycle bicycle pedestrian traffic_cone"
    assert tuple(published.split()) == CLASSES
    assert SMALL_CLASSES == (8, 9)


@pytest.mark.parametrize(("peak_size", "small"), [(3, (8, 9)), (1, ()), (5, (1,))])
def test_proposals_are_the_highest_peaks(peak_size, small):
    head = small_head(peak_size=peak_size, small_classes=small)
    logits = torch.randn(2, 10, 9, 7, generator=torch.Generator().manual_seed(1))
    labels, cells, heat = head._proposals(logits)
    margin = peak_size // 2
    for b in range(2):
        p = logits[b].sigmoid().numpy()
        peaks = np.zeros_like(p)
        for c, x, y in np.ndindex(p.shape):
            inside = margin <= x < 9 - margin and margin <= y < 7 - margin
            square = p[c, max(0, x - margin) : x + margin + 1, max(0, y - margin) : y + margin + 1]
            if c in small or (inside and p[c, x, y] == square.max()):
                peaks[c, x, y] = p[c, x, y]
        best = np.argsort(-peaks.ravel(), kind="stable")[: head.spec.queries]
        some = peaks.ravel()[best] > 0  # among those that are no peaks there is no order
        np.testing.assert_array_equal((labels[b] * 63 + cells[b]).numpy()[some], best[some])
        np.testing.assert_array_equal(heat[b].numpy(), peaks.reshape(10, 63)[:, cells[b]])


def test_decoder_layer_is_attention_written_out():
    torch.manual_seed(0)
    layer = DecoderLayer(TransFusionSpec(8, RANGE, CELL, width=8, heads=2, ffn_width=12, dropout=0.3)).eval()
    query, keys = torch.randn(1, 5, 8), torch.randn(1, 11, 8)
    positions, key_positions = torch.rand(1, 5, 2) * 9, torch.rand(1, 11, 2) * 9

    def attention(net, q, kv):
        weights, biases = net.in_proj_weight.split(8), net.in_proj_bias.split(8)
        q, k, v = (x @ w.T + b for x, w, b in zip((q, kv, kv), weights, biases))
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            heads.append(torch.softmax(q[:, h] @ k[:, h].T / 2, 1) @ v[:, h])
        return torch.cat(heads, 1) @ net.out_proj.weight.T + net.out_proj.bias

    with torch.no_grad():
        place, x = layer.self_posembed(positions)[0], query[0]
        x = layer.norm1(x + attention(layer.self_attn, x + place, x + place))
        x = layer.norm2(x + attention(layer.cross_attn, x + place, keys[0] + layer.cross_posembed(key_positions)[0]))
        x = layer.norm3(x + layer.linear2(torch.relu(layer.linear1(x))))
        torch.testing.assert_close(layer(query, positions, keys, key_positions)[0], x)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 8), st.sampled_from([0.1, 0.5]))
def test_heatmap_equals_mmdet3ds(seed, count, overlap):
    from mmdet3d.models.utils import draw_heatmap_gaussian, gaussian_radius

    boxes = random_boxes(seed, count)
    wanted = torch.zeros(10, *SHAPE)
    for center, size, label in zip(boxes.centers, boxes.sizes, boxes.labels):
        length, width = torch.tensor(size[0] / CELL[0]), torch.tensor(size[1] / CELL[1])
        radius = max(1, int(gaussian_radius((length, width), overlap)))
        x, y = int((center[0] - RANGE[0]) / CELL[0]), int((center[1] - RANGE[1]) / CELL[1])
        draw_heatmap_gaussian(wanted[label], torch.tensor([y, x]), radius)
    drawn = draw_heatmap(boxes, (10, *SHAPE), CODER, overlap, 1)
    np.testing.assert_allclose(drawn, wanted.numpy(), atol=1e-6)
    assert ((drawn == 1) == (wanted.numpy() == 1)).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 4))
def test_matching_is_the_best_of_all(seed, count):
    found, truth = random_boxes(seed, 5, spread=4), random_boxes(seed + 1, count, spread=4)
    p = np.random.default_rng(seed).uniform(0.01, 0.99, (5, 10))
    extent = np.array([32.0, 24.0])
    overlap = iou_3d(found, truth)

    def cost(q, g):
        s = p[q, truth.labels[g]]
        focal = 0.25 * (1 - s) ** 2 * -np.log(s) - 0.75 * s**2 * -np.log(1 - s)
        distance = abs((found.centers[q] - truth.centers[g])[:2] / extent).sum()
        return 0.15 * focal + 0.25 * distance - 0.25 * overlap[q, g]

    queries, chosen = match(found, p, truth, extent)
    assert sorted(chosen) == list(range(count))
    total = sum(cost(q, g) for q, g in zip(queries, chosen))
    every = [sum(cost(q, g) for g, q in enumerate(way)) for way in itertools.permutations(range(5), count)]
    assert total == pytest.approx(min(every))


def perfect(head: TransFusionHead, truth: list[Boxes]) -> Predictions:
    """What a head would say that knew: the first queries the truth, the others nothing."""
    batch, queries, classes = len(truth), head.spec.queries, head.spec.num_classes
    codes, logits = torch.zeros(batch, queries, 10), torch.full((batch, queries, classes), -9.0)
    labels = torch.zeros(batch, queries, dtype=torch.long)
    drawn = [draw_heatmap(head._learnable(t), (classes, *SHAPE), head.coder, 0.1, head.spec.min_radius) for t in truth]
    for b, boxes in enumerate(truth):
        n = len(boxes)
        codes[b, :n] = torch.from_numpy(np.nan_to_num(head.coder.encode(boxes))).float()
        labels[b, :n] = torch.from_numpy(boxes.labels)
        logits[b, np.arange(n), boxes.labels] = 9.0
    said = dict(zip(PARTS, codes.transpose(1, 2).split(list(PARTS.values()), 1)))
    said["heatmap"] = logits.transpose(1, 2)
    heat = F.one_hot(labels, classes).transpose(1, 2).float() * 0.9
    heatmap = torch.logit(torch.from_numpy(np.stack(drawn)).clamp(1e-4, 1 - 1e-4))
    return Predictions(heatmap, labels, codes[..., :2], heat, [said])


@pytest.mark.parametrize("convention", Convention)
def test_perfect_predictions_are_the_truth_and_cost_least(convention):
    head = small_head(score_threshold=0.5, convention=convention)
    truth = [random_boxes(0, 7), random_boxes(1, 0), random_boxes(2, 3)]
    truth[0].velocities[:3] = np.nan
    predictions = perfect(head, truth)
    for boxes, found in zip(truth, head.predict(predictions)):
        np.testing.assert_array_equal(found.labels, boxes.labels)
        np.testing.assert_allclose(found.centers, boxes.centers, atol=1e-5)
        np.testing.assert_allclose(found.sizes, boxes.sizes, rtol=1e-5)
        np.testing.assert_allclose(np.exp(1j * found.yaws), np.exp(1j * boxes.yaws), atol=1e-6)
    terms = head.loss(predictions, truth)
    assert terms["box"] < 1e-5
    assert terms["class"] < 1e-5
    said = predictions.layers[0]
    for part, right in said.items():
        worse = predictions._replace(layers=[said | {part: -right if part == "heatmap" else right + 0.5}])
        assert sum(head.loss(worse, truth).values()) > sum(terms.values()) + 1e-4


def test_unknown_velocities_and_boxes_of_no_class_or_outside_are_not_learnt():
    head = small_head(num_classes=9)  # no traffic cones
    boxes = random_boxes(0, 6)
    boxes.labels[:] = [0, 1, 2, -1, 9, 3]
    boxes.centers[5, 0] = 16.5
    boxes.velocities[0] = np.nan
    kept = head._learnable(boxes)
    assert kept.labels.tolist() == [0, 1, 2]
    predictions = perfect(head, [kept])
    velocity = torch.ones_like(predictions.layers[0]["vel"]).requires_grad_()
    predictions.layers[0]["vel"] = velocity
    terms = head.loss(predictions, [boxes])
    terms["box"].backward()
    assert torch.isfinite(terms["box"])
    assert (velocity.grad[0].abs().sum(0) > 0).nonzero()[:, 0].tolist() == [1, 2]


def test_a_prediction_that_is_not_finite_shows_in_the_loss():
    head = small_head()
    predictions = perfect(head, [random_boxes(0, 3)])
    predictions.layers[0]["center"][:] = torch.nan
    assert torch.isnan(head.loss(predictions, [random_boxes(0, 3)])["box"])


def test_boxes_beyond_the_kept_range_and_below_the_threshold_are_left_out():
    boxes = random_boxes(0, 4)
    boxes.centers[:] = [[0, 0, 0], [9.5, 0, 0], [0, 0, 4.2], [0, 0, 4.2]]
    boxes.sizes[:, 2] = [1, 1, 1, 3]  # z is tested half a height below
    head = small_head(score_threshold=0.5, keep_range=(-9, -9, -3, 9, 9, 3))
    assert head.predict(perfect(head, [boxes]))[0].sizes[:, 2].round(4).tolist() == [1, 3]
    head = small_head(score_threshold=0.95)
    assert len(head.predict(perfect(head, [boxes]))[0]) == 0


def test_several_decoder_layers_start_where_the_one_before_ended():
    head = small_head(decoder_layers=2).train()
    bev = torch.randn(2, 8, *SHAPE)
    seen = []
    head.decoder[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    predictions = head(bev)
    torch.testing.assert_close(seen[0].transpose(1, 2), predictions.layers[0]["center"])
    sum(head.loss(predictions, [random_boxes(0, 3), random_boxes(1, 0)]).values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


def test_scores_start_near_a_tenth():
    predictions = small_head()(torch.randn(1, 8, *SHAPE))
    for logits in (predictions.heatmap, predictions.layers[0]["heatmap"]):
        assert logits.sigmoid().min() > 0.05
        assert logits.sigmoid().max() < 0.2


def test_it_learns_one_sample():
    head = small_head(queries=12, dropout=0.0).train()
    truth = random_boxes(5, 4)
    truth.centers[:, :2] = [[-11.3, -6.1], [-3.2, 7.4], [5.7, -7.7], [10.9, 5.0]]
    bev = torch.zeros(1, 8, *SHAPE)
    for (x, y), values in zip(CODER.cells(truth).astype(int), torch.randn(4, 8)):
        bev[0, :, x - 1 : x + 2, y - 1 : y + 2] += values[:, None, None]
    optimizer = torch.optim.AdamW(head.parameters(), 1e-2)
    losses = []
    for step in range(80):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 80)
        loss = sum(head.loss(head(bev), [truth]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    (found,) = head.predict(head(bev))
    found = found[:4]
    wanted, found = truth[np.argsort(truth.centers[:, 0])], found[np.argsort(found.centers[:, 0])]
    np.testing.assert_array_equal(found.labels, wanted.labels)
    np.testing.assert_allclose(found.centers, wanted.centers, atol=0.5)
    assert iou_3d(found, wanted).diagonal().min() > 0.5
