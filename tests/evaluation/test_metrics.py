"""Our metrics against the devkit's own `DetectionEval.evaluate`, on inputs made to find where they could differ."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.detection.utils import detection_name_to_rel_attributes

from evaluation import matching, metrics
from evaluation.devkit import scores_of
from evaluation.flat import FlatBoxes, ego_distances
from evaluation.metrics import BANDS, DISTANCES, ERRORS, evaluate
from models.names import CLASSES

SAMPLES = ["a", "b", "c"]
EGO = np.array([[100.0, 200.0], [0.0, 0.0], [-5.0, 3.0]])


def box(random, sample: int, truth: bool, classes: list[str], grid: float, spread: float, scores) -> DetectionBox:
    """A box whose numbers often coincide with others': positions on a grid, few scores, few angles."""
    name = classes[random.integers(len(classes))]
    xy = EGO[sample] + (np.round(random.uniform(-spread, spread, 2) / grid) * grid if grid else random.normal(size=2))
    yaw = random.choice([0.0, np.pi / 2, np.pi, -np.pi, random.uniform(-4, 4)])
    turn = np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]) * random.choice([1, -1, 2.5])
    attributes = ["", *detection_name_to_rel_attributes(name)]
    return DetectionBox(
        sample_token=SAMPLES[sample],
        translation=(*xy.tolist(), float(random.normal())),
        size=tuple(random.choice([0.5, 1.0, 4.0], 3).tolist()),
        rotation=tuple(turn.tolist()),
        velocity=(np.nan, np.nan) if random.random() < 0.2 else tuple(random.normal(size=2).tolist()),
        detection_name=name,
        detection_score=-1.0 if truth else float(random.choice(scores) if scores else random.random()),
        attribute_name=attributes[random.integers(len(attributes))],
    )


def boxes(random, counts: list[int], **how) -> EvalBoxes:
    out = EvalBoxes()
    for sample, count in enumerate(counts):
        out.add_boxes(SAMPLES[sample], [box(random, sample, **how) for _ in range(count)])
    return out


def flat(boxes: EvalBoxes) -> FlatBoxes:
    parts = [(SAMPLES.index(token), [b.serialize() for b in boxes[token]]) for token in boxes.sample_tokens]
    return FlatBoxes.joined(FlatBoxes.from_records(sample, records) for sample, records in parts)


def devkit(truth: EvalBoxes, found: EvalBoxes) -> dict:
    config = config_factory("detection_cvpr_2019")
    run = SimpleNamespace(cfg=config, gt_boxes=truth, pred_boxes=found, verbose=False)
    return scores_of(DetectionEval.evaluate(run)[0], truth)


def differences(ours: dict, theirs: dict) -> list[str]:
    """Where two results (our bands aside) differ by more than 1e-6."""
    assert ours["classes"].keys() == theirs["classes"].keys()
    pairs = {key: (ours[key], theirs[key]) for key in theirs if key != "classes"}
    for name, scores in theirs["classes"].items():
        pairs |= {f"{name} {key}": (ours["classes"][name][key], value) for key, value in scores.items()}
    return [f"{k}: {a} not {b}" for k, (a, b) in pairs.items() if a != pytest.approx(b, abs=1e-6, nan_ok=True)]


CASES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "truths": st.lists(st.integers(0, 12), min_size=3, max_size=3),
        "founds": st.lists(st.integers(0, 25), min_size=3, max_size=3),
        "classes": st.lists(st.sampled_from(CLASSES), min_size=1, max_size=4, unique=True),
        "found_classes": st.lists(st.sampled_from(CLASSES), max_size=2),
        "grid": st.sampled_from([0.5, 1.0, 0.3, 0.0]),  # 0.3 and 0.4: distances of 0.5 that round either way
        "spread": st.sampled_from([1.0, 3.0, 25.0]),
        "scores": st.sampled_from([None, [0.5], [0.0, 0.5], [0.0], [0.1, 0.2, 0.3, 1.0]]),
    }
)


def case(seed, truths, founds, classes, found_classes, grid, spread, scores) -> tuple[EvalBoxes, EvalBoxes]:
    random = np.random.default_rng(seed)
    how = {"grid": grid, "spread": spread, "scores": scores}
    truth = boxes(random, truths, truth=True, classes=classes, **how)
    return truth, boxes(random, founds, truth=False, classes=found_classes or classes, **how)


@settings(max_examples=150, deadline=None)
@given(CASES)
def test_the_devkits_numbers(drawn):
    truth, found = case(**drawn)
    assert differences(evaluate(flat(truth), flat(found), EGO), devkit(truth, found)) == []


def test_the_devkits_numbers_where_much_is_found():
    """Enough boxes for curves of many steps: 600 true ones, most found, many wrong, scores with and without ties."""
    for scores in (None, np.round(np.linspace(0, 1, 8), 1).tolist()):
        random = np.random.default_rng(1)
        how = {"classes": ["car", "barrier", "pedestrian"], "grid": 0.5, "spread": 12.0, "scores": scores}
        truth, found = (boxes(random, counts, truth=t, **how) for t, counts in ((True, [200] * 3), (False, [400] * 3)))
        ours = evaluate(flat(truth), flat(found), EGO)
        assert 0.1 < ours["classes"]["car"]["AP"] < 0.9
        assert differences(ours, devkit(truth, found)) == []


@pytest.mark.parametrize("offset", [0.5, 1.0, 2.0, 4.0])
def test_a_box_at_the_threshold_does_not_match(offset):
    truth = FlatBoxes.from_records(0, [record(0, 0)])
    assert matching.match(truth, FlatBoxes.from_records(0, [record(offset, 0)]), [offset]).tolist() == [[-1]]
    near = FlatBoxes.from_records(0, [record(np.nextafter(offset, 0), 0)])
    assert matching.match(truth, near, [offset]).tolist() == [[0]]


def record(x: float, y: float, score: float = 0.5, name: str = "car") -> dict:
    turn = {"rotation": [1.0, 0, 0, 0], "velocity": [0.0, 0], "attribute_name": "", "size": [1.0, 1, 1]}
    return {"translation": [x, y, 0.0], "detection_name": name, "detection_score": score, **turn}


@settings(max_examples=50, deadline=None)
@given(CASES, st.integers(1, 30))
def test_the_size_of_a_piece_changes_nothing(drawn, pairs):
    truth, found = map(flat, case(**drawn))
    whole = matching.match(truth, found, DISTANCES)
    before, matching.PAIRS = matching.PAIRS, pairs
    try:
        np.testing.assert_array_equal(matching.match(truth, found, DISTANCES), whole)
    finally:
        matching.PAIRS = before


def slow_bands(truth: FlatBoxes, found: FlatBoxes, name: str) -> dict[float, list[tuple[float, bool, str]]]:
    """For each distance: (score, hit, band) of one class's predictions, one after the other."""
    label = CLASSES.index(name)

    def band(boxes: FlatBoxes, row: int) -> str | None:
        away = ego_distances(boxes, EGO)[row]
        return next((name for name, (low, high) in BANDS.items() if low <= away < high), None)

    out = {}
    for limit in DISTANCES:
        rows = sorted(np.flatnonzero(found.label == label), key=lambda r: (found.score[r], r), reverse=True)
        taken, out[limit] = set(), []
        for row in rows:
            best = None
            for other in np.flatnonzero((truth.label == label) & (truth.sample == found.sample[row])):
                away = np.linalg.norm(truth.center[other, :2] - found.center[row, :2])
                if other not in taken and away < limit and (best is None or away < best[0]):
                    best = away, other
            taken |= {best[1]} if best else set()
            out[limit].append((found.score[row], best is not None, band(*(truth, best[1]) if best else (found, row))))
    return out


@settings(max_examples=40, deadline=None)
@given(CASES)
def test_bands_count_matches_where_the_true_box_is(drawn):
    truth, found = map(flat, case(**(drawn | {"spread": 50.0})))
    result, away = evaluate(truth, found, EGO), ego_distances(truth, EGO)
    for name in CLASSES:
        slow = slow_bands(truth, found, name)
        for band, (low, high) in BANDS.items():
            inside = (truth.label == CLASSES.index(name)) & (low <= away) & (away < high)
            scores = result["bands"][band]["classes"][name]
            assert scores["ground_truth"] == inside.sum()
            for limit in DISTANCES:
                hits = np.array([hit for _, hit, place in slow[limit] if place == band], bool)
                assert scores[f"AP@{limit}"] == metrics.average_precision(hits, int(inside.sum()))


def test_far_from_its_borders_a_band_is_the_devkit_on_its_boxes():
    random = np.random.default_rng(3)
    how = {"classes": list(CLASSES[:4]), "grid": 0.25, "scores": None, "spread": 10.0}  # within 14.2 m
    truth, found = boxes(random, [60] * 3, truth=True, **how), boxes(random, [90] * 3, truth=False, **how)
    ours = evaluate(flat(truth), flat(found), EGO)
    assert differences(ours["bands"]["0-20 m"], {"classes": devkit(truth, found)["classes"]}) == []
    assert ours["bands"]["20-35 m"]["mAP"] is None
    assert ours["bands"]["0-20 m"]["mAP"] == pytest.approx(ours["mAP"] * 10 / 4)  # the classes that are there


def test_a_perfect_detector_is_perfect_in_every_band():
    truth = FlatBoxes.from_records(1, [record(x, 0, 0.9, name) for x in (5, 25, 45) for name in ("car", "trailer")])
    result = evaluate(truth, truth, EGO)
    for band in result["bands"].values():
        # No true box has an attribute, so that error is 1, as the devkit has it.
        assert (band["mAP"], [band[f"m{e}"] for e in ERRORS]) == (pytest.approx(1), [0, 0, 0, 0, 1])
        assert sum(c["ground_truth"] for c in band["classes"].values()) == 2
