"""The parts of a report: logs, charts and the graph of the stages."""

import json
import re

import numpy as np
import pytest

from driver import TINY
from gallery.report.detections import detections
from gallery.report.graph import graph
from gallery.report.logs import Series, envelope, read_log, smoothed
from gallery.report.run import Run
from gallery.report.svg import Chart, log_ticks, ticks
from tasks.engine.config import load_config
from tasks.engine.plan import make_plan


@pytest.fixture(scope="module")
def run(scored):
    config = load_config(TINY, [], scored.dataroot)
    return Run(config, make_plan(config, scored.root), scored.dataroot)


def test_curves_have_the_ap_of_the_official_evaluation(run, metrics):
    of = detections(run)
    official = {name: s["AP"] for name, s in metrics["pretrained"]["classes"].items() if s["ground_truth"]}
    assert of.ap == {name: pytest.approx(ap, abs=1e-6) for name, ap in official.items()}
    assert max(of.ap.values()) > 0.2
    assert [curve.title for curve in of.precision] == list(official)
    assert run.notes.sentences == []


def test_confusion_counts_every_true_box_once(run, metrics):
    """And of those of its class as many as a detector can find."""
    table = detections(run).confusion
    assert table is not None
    for name, cells, total in table.rows[:-1]:
        assert total == sum(count for count, _ in cells) == metrics["pretrained"]["classes"][name]["ground_truth"]
        assert sum(share for _, share in cells) == pytest.approx(1.0)
    columns = table.columns
    mixed = sum(
        count
        for name, cells, _ in table.rows[:-1]
        for column, (count, _) in zip(columns, cells)
        if column not in (name, "missed")
    )
    right = sum(cells[columns.index(name)][0] for name, cells, _ in table.rows[:-1] if name in columns)
    assert right > mixed > 0


def test_a_log_is_read_as_it_was_written(tmp_path):
    lines = [
        {"step": s, "loss": 3.0 - s, "task0.box": 1.0, "task1.box": 2.0, "seconds": 0.5, "seconds_waiting": 0.1}
        for s in range(3)
    ]
    held_out = {"step": 2, "held_out_depth": 1.5, "held_out_depth_blind": 2.5}
    text = "\n".join(json.dumps(line) for line in [*lines, held_out]) + '\n{"step": 3, "lo'
    (tmp_path / "metrics.jsonl").write_text(text)
    log = read_log(tmp_path / "metrics.jsonl")
    assert list(log.losses) == ["loss", "box"]
    assert log.losses["box"].value.tolist() == [3.0, 3.0, 3.0]
    assert {name: series.value.tolist() for name, series in log.held_out.items()} == {
        "depth": [1.5],
        "depth_blind": [2.5],
    }
    assert (log.steps, log.seconds_a_step, log.waiting) == (3, 0.5, pytest.approx(0.2))


def test_means_and_envelopes_are_those_of_a_loop():
    values = np.random.default_rng(0).normal(size=101)
    half = round(101 * 0.04 / 2)
    expected = [values[max(0, i - half) : i + half + 1].mean() for i in range(101)]
    np.testing.assert_allclose(smoothed(values), expected)
    middles, low, high = envelope(Series(np.arange(101), values), 10)
    assert len(middles) == 10
    assert (low.min(), high.max()) == (values.min(), values.max())
    assert (np.diff(middles) > 0).all()
    assert smoothed(values[:1]) == values[:1]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.5, 1]), (0, 1500, [0, 500, 1000, 1500]), (-1, 1, [-1, -0.5, 0, 0.5, 1]), (3, 3, [3])],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert ticks(low, high, 4) == expected


def test_ticks_of_a_logarithmic_axis():
    assert log_ticks(0.9, 6) == [1, 1.5, 2, 3, 5]
    assert log_ticks(0.01, 1000) == pytest.approx([0.01, 0.1, 1, 10, 100, 1000])


def test_points_stand_where_the_axes_say():
    chart = Chart((0, 10), (1, 100), size=(200, 100), log_y=True, left=40, right=20)
    assert chart.place(0, 1) == (40, 68)
    assert chart.place(10, 100) == (180, 10)
    assert chart.place(5, 10) == (110, 39)


def test_words_cannot_become_markup():
    chart = Chart((0, 1), (0, 1), labels=("<b>", ""), title='"><script>')
    chart.beside(0.5, "<i>", "&")
    assert not re.search(r"<(b|i|script)>", chart.svg())


def test_the_graph_leaves_out_what_follows_and_no_stage_is_on_another(run):
    svg = graph(run)
    assert svg.count('class="stage') == len(run.plan)
    reads = sum(len(planned.node.needs) for planned in run.plan)
    assert len(run.plan) - 1 <= svg.count('class="edge"') < reads
    places = [tuple(map(int, place)) for place in re.findall(r'<rect x="(\d+)" y="(\d+)"', svg)]
    for i, (x, y) in enumerate(places):
        assert all(abs(x - u) >= 162 or abs(y - v) >= 76 for u, v in places[:i])
