"""`geomim experiment gain` on the tiny world."""

import json
import shutil

import pytest

pytestmark = pytest.mark.e2e
OPTIONS = ("experiment.pretrain_seeds=false", "experiment.fractions=[1.0]", "experiment.seeds=2")


def test_the_experiment_runs_what_is_missing_and_reports(cli):
    before = {p: p.stat().st_mtime_ns for p in cli.root.glob("*/*/manifest.json")}
    sets = [part for option in OPTIONS for part in ("--set", option)]
    told = cli.gain(*sets)
    assert "without pretraining" in told.stdout
    assert "Student's" in told.stdout
    # The pipeline has pretrained with this seed; finetuning alone is new.
    now = {p: p.parent.parent.name for p in cli.root.glob("*/*/manifest.json") if p not in before}
    assert sorted(now.values()) == [*["evaluate"] * 2, "experiment", *["finetune"] * 2]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    (folder,) = (path.parent for path, stage in now.items() if stage == "experiment")
    assert {"result.json", "report.md", "gain.png"} <= {p.name for p in folder.iterdir()}
    result = json.loads((folder / "result.json").read_text())
    assert [(s["arm"], s["seed"]) for s in result["scores"]] == [
        ("scratch", 0), ("geomim", 0), ("scratch", 1), ("geomim", 1)
    ]  # fmt: skip
    inputs = json.loads((folder / "manifest.json").read_text())["recipe"]["inputs"]
    for score in result["scores"]:
        key = inputs[f"{score['arm']}/{score['fraction']:g}/{score['seed']}"]
        metrics = json.loads((cli.root / "evaluate" / key[:16] / "metrics.json").read_text())
        assert (score["NDS"], score["mAP"]) == (metrics["NDS"], metrics["mAP"])
    assert "experiment gain" in result["made"]["command"]

    again = json.loads(cli.gain(*sets, "--json").stdout)
    assert again["scores"] == result["scores"]
    assert not [p for p in cli.root.glob("*/*/manifest.json") if p not in before and p not in now]

    shown, scored = folder / "result.json", cli.root / "evaluate" / key[:16] / "metrics.json"
    shown.write_text(shown.read_text().replace('"seed": 1', '"seed": 7'))
    assert json.loads(cli.gain(*sets, "--json").stdout)["scores"] == result["scores"]  # made again
    scored.write_text(scored.read_text().replace('"NDS": 0', '"NDS": 9', 1))
    shutil.rmtree(folder)
    assert f"{scored} has other bytes than were written" in cli.gain(*sets, code=1).stderr


def test_a_mistake_is_one_sentence(cli):
    failed = cli.gain("--arms", "geomim", code=2)
    assert "experiment.arms" in failed.stderr or "two at least" in failed.stderr
