"""The report of a finished run: one file that holds all it shows, with the numbers that the evaluation wrote."""

import base64
import io
import re
import subprocess
import sys

import pytest
from PIL import Image

from driver import environment

SIZE = 4_000_000  # bytes that a mail takes


def test_it_is_one_file_that_fetches_nothing(page):
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name, value in attributes.items():
            assert name not in ("srcset", "data", "action", "background", "xlink:href")
            assert name != "src" or (tag == "img" and value.startswith("data:image/webp;base64,"))
            assert name != "href" or value.startswith("#")
    assert re.findall(r"url\((?!#tip\))|@import|@font-face", page.html) == []
    assert len(page.html.encode()) < SIZE


def test_its_pictures_are_pictures_and_have_words(page):
    pictures = page.of("img")
    assert len(pictures) >= 9  # both arms, the teacher's map, depth, pretraining, four worst samples
    for attributes in pictures:
        data = base64.b64decode(attributes["src"].partition(",")[2], validate=True)
        assert Image.open(io.BytesIO(data)).width >= 400
        assert len(attributes["alt"]) > 20
    charts = [attributes for attributes in page.of("svg") if attributes.get("role") == "img"]
    assert len(charts) > 20
    assert all(len(attributes["aria-label"]) > 20 for attributes in charts)


def test_links_lead_somewhere_and_names_are_given_once(page):
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert {attributes["href"][1:] for attributes in page.of("a")} <= set(names)


def test_the_headline_has_the_scores_of_both_arms_and_the_gain(page, metrics):
    first, second = metrics["pretrained"], metrics["baseline"]
    for name in ("mAP", "NDS"):
        assert first[name] > second[name] > 0.01  # or the test could not tell them apart
        assert f"{name}, pretrained {first[name]:.4f}" in page.text
        assert f"{name}, baseline {second[name]:.4f}" in page.text
        assert f"{name}, gain {first[name] - second[name]:+.4f} one seed: can be chance" in page.text
    share = first["NDS"] / second["NDS"] - 1
    sentence = f"NDS is {first['NDS']:.4f}, {first['NDS'] - second['NDS']:.4f} more than without ({share:+.0%})"
    assert sentence in page.text
    assert "this alone cannot tell a gain from chance" in page.text
    assert f"samples of {first['split']} {first['samples']}" in page.text


def test_the_tables_have_every_class_error_and_distance(page, metrics):
    for arm in metrics.values():
        for name, scores in arm["classes"].items():
            if scores["ground_truth"]:
                errors = ["-" if scores[e] is None else f"{scores[e]:.4f}" for e in ("ATE", "ASE", "AOE", "AVE", "AAE")]
                assert " ".join([name, f"{scores['AP']:.4f}", *errors, str(scores["ground_truth"])]) in page.text
    for name, band in metrics["pretrained"]["bands"].items():
        if band["mAP"] is not None:
            assert f"{name} {band['mAP']:.4f} {band['NDS']:.4f}" in page.text


def test_it_has_all_stages_and_what_made_them(page, scored):
    for name, row in scored.status().items():
        assert row["path"] in page.text
        assert f"{name} ✓ cached {row['key'][:8]}" in page.text
    assert f"{len(scored.status())} of {len(scored.status())} stages finished" in page.text
    for words in ("Fitting the LiDAR teacher", "Pretraining", "Finetuning", "held-out", "python 3", "geomim run"):
        assert words in page.text
    assert "What this report could not show" not in page.text


def test_settings_are_those_that_differ(page):
    changes = re.findall(r"<code>([\w.]+)</code></th><td>(.*?)</td><td><b>(.*?)</b>", page.html)
    told = {field: (was, now) for field, was, now in changes}
    assert told["pretrain.steps"][1] == "6"
    assert all(was != now for was, now in told.values())
    assert "depth.min_depth" not in told  # which the config leaves alone
    assert "lidar.widths" in told
    assert "fit.lidar.widths" not in told  # told once


def test_it_is_written_without_torch_and_prefect(scored, tmp_path):
    out = tmp_path / "deep" / "report.html"
    words = [str(word) for word in scored.command("report", "--out", out)[1:]]
    code = f"import sys; from flows.cli import app; app({words!r}, standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told, loaded = done.stdout.splitlines()[-2:]
    assert re.fullmatch(rf"{re.escape(str(out))}  [\d.]+ [kM]B  [\d.]+ s", told)
    assert {"torch", "prefect", "matplotlib"}.isdisjoint(loaded.split())


@pytest.mark.parametrize("opens", [True, False])
def test_it_opens_in_the_browser(scored, tmp_path, monkeypatch, capsys, opens):
    from flows import report as command
    from tasks.engine.config import PipelineConfig

    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or opens)
    config = PipelineConfig(dataroot=scored.dataroot)
    command.write_report(config, scored.root, tmp_path / "a b.html", [], "defaults", show=True)
    assert opened == [f"file://{tmp_path}/a%20b.html"]
    assert ("there is no browser" in capsys.readouterr().err) is not opens
