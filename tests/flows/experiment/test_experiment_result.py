import numpy as np
import pytest
from PIL import Image

from flows.experiment.plan import Run
from flows.experiment.plot import draw_gain
from flows.experiment.result import METRICS, report, summarise, table
from tasks.engine.experiment import ExperimentConfig

CONFIG = ExperimentConfig(arms=("scratch", "geomim"), seeds=3, fractions=(0.1, 1.0))


def scored(*gains):
    """Runs whose NDS is 0.1 + 0.01 * seed, more by a fraction's gain where pretrained."""
    out = []
    for fraction, gain in zip(CONFIG.fractions, gains):
        for seed in range(CONFIG.seeds):
            for arm in CONFIG.arms:
                own = gain[seed] if arm == "geomim" else 0.0
                scores = dict.fromkeys(METRICS, 0.5) | {"NDS": 0.1 + 0.01 * seed + own}
                out.append((Run(arm, fraction, seed, None), scores))
    return out


@pytest.fixture
def result():
    return summarise(CONFIG, scored((0.05, 0.06, 0.055), (0.01, -0.01, 0.0))) | {"made": {"command": "geomim ..."}}


def test_means_spreads_and_differences_belong_to_their_arm_and_fraction(result):
    spread = {(row["arm"], row["fraction"]): row["NDS"] for row in result["spread"]}
    assert spread["scratch", 0.1] == pytest.approx({"mean": 0.11, "std": 0.01, "low": 0.1, "high": 0.12})
    assert spread["geomim", 0.1]["mean"] == pytest.approx(0.165)
    first, second = result["over_first"]
    assert (first["fraction"], first["arm"], first["base"]) == (0.1, "geomim", "scratch")
    assert first["NDS"]["mean"] == pytest.approx(0.055)
    assert first["NDS"]["apart"]
    assert second["NDS"]["low"] < 0 < second["NDS"]["high"]
    assert not second["NDS"]["apart"]


def test_the_verdict_claims_no_more_than_the_interval(result):
    sure, unsure = result["verdict"]
    assert "10% of the labels" in sure
    assert "+0.0550" in sure
    assert "is better" in sure
    assert "worst seed is above" in sure
    assert "not told apart" in unsure
    (worse, _) = summarise(CONFIG, scored((-0.05, -0.06, -0.055), (0, 0, 0)))["verdict"]
    assert "is worse" in worse


def test_one_row_an_arm_and_fraction_and_every_run_in_the_report(result):
    assert len(table(result).splitlines()) == 2 + 4
    text = report(CONFIG, result)
    assert "| 10% | (c) GeoMIM | 2 | 0.1750 | 0.5000 |" in text
    assert "pretraining and finetuning alike" in text
    assert "command: geomim ..." in text
    assert "Scores are the official ones on val." in text
    own = [(run, scores | {"own_classes": {"CAR": "car"}}) for run, scores in scored((0.05, 0.06, 0.055), (0, 0, 0))]
    text = report(CONFIG, summarise(CONFIG, own) | {"made": {}})
    assert "Scores are geomim's own: the devkit does not know the categories that ingest.classes maps." in text
    assert "official" not in text


def test_the_picture_shows_points_and_lines(result, tmp_path):
    draw_gain(tmp_path / "gain.png", result)
    picture = np.asarray(Image.open(tmp_path / "gain.png").convert("RGB")).astype(int)
    assert (tmp_path / "gain.png").stat().st_size < 200_000
    for colour in ((31, 119, 180), (255, 127, 14)):  # an arm each
        assert (np.abs(picture - colour).sum(-1) < 30).sum() > 100
