"""`geomim diff` of two artifacts and of two configs."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from dataroot.names import TABLES
from storage.artifact import Artifact
from storage.bev import BevAttributes, BevWriter
from storage.manifest import Recipe

MADE = {"commit": "c0ffee", "packages": {"zarr": "3.1"}, "device": "cpu"}


def finish(root, sweeps=0, score=0.25, cells=4, commit="c0ffee", stage="teacher", index="aaaa"):
    recipe = Recipe(stage=stage, version=1, config={"sweeps": sweeps, "lidar": {"blocks": 2}}, inputs={"ingest": index})
    artifact = Artifact(root, stage, recipe.key)
    artifact.begin(recipe)
    attributes = BevAttributes((-2.0, -2.0, -1.0, 2.0, 2.0, 1.0), (4 / cells, 4 / cells), part_size=1)
    writer = BevWriter(artifact.path / "bev.zarr", np.array(["a"]), (2, cells, cells), attributes)
    writer.write(0, np.zeros((1, 2, cells, cells)))
    scores = {"mAP": score, "classes": {"car": {"AP": score, "ATE": score}}}
    (artifact.path / "metrics.json").write_text(json.dumps(scores))
    artifact.finish(recipe, {"samples": 1, "gate": {"mAP": score}}, 1.0, MADE | {"commit": commit})
    return artifact.path


def told(geomim, *words):
    code, printed, _ = geomim("diff", *words, "--json")
    return code, json.loads(printed)


def test_artifacts_field_by_field(geomim, tmp_path):
    paths = finish(tmp_path), finish(tmp_path, sweeps=3, score=0.5, cells=8, commit="dead", index="bbbb")
    code, found = told(geomim, *paths)
    assert (code, found["kind"], found["equal"]) == (1, "artifact", False)
    assert found["recipe"] == {"config.sweeps": [0, 3]}
    assert found["inputs"] == {"ingest": ["ingest/aaaa", "ingest/bbbb"]}
    assert found["results"]["gate.mAP"] == found["results"]["metrics.classes.car.ATE"] == [0.25, 0.5]
    assert "samples" not in found["results"]
    shapes = {name: pair for name, pair in found["arrays"].items() if name.endswith(".shape")}
    assert shapes
    assert all(one != other for one, other in shapes.values())
    assert found["made"]["commit"] == ["c0ffee", "dead"]
    assert "packages.zarr" not in found["made"]
    assert {"bev.zarr", "metrics.json"} == found["files"].keys()


def test_people_see_both_sides_and_the_difference(geomim, tmp_path):
    code, printed, _ = geomim("diff", finish(tmp_path), finish(tmp_path, sweeps=3, score=0.5))
    assert code == 1
    rows = [line.split() for line in printed.splitlines()]
    assert ["config.sweeps", "0", "3"] in rows
    assert ["metrics.classes.car.AP", "0.25", "0.5", "+0.25"] in rows
    assert "1 more scores differ: --json has them" in printed  # ATE
    assert "\x1b" not in printed  # colour is for terminals


def test_equal_but_made_elsewhere(geomim, tmp_path):
    paths = finish(tmp_path / "here"), finish(tmp_path / "there", commit="dead")
    code, found = told(geomim, *paths)
    assert (code, found["equal"], found["made"]["commit"]) == (0, True, ["c0ffee", "dead"])
    assert "equal in all that decides a result" in geomim("diff", *paths)[1]


def test_one_recipe_with_other_bytes_differs(geomim, tmp_path):
    code, found = told(geomim, finish(tmp_path / "here"), finish(tmp_path / "there", score=0.5))
    assert (code, found["recipe"], found["files"]["metrics.json"][0]["differ"]) == (1, {}, 1)


@pytest.fixture
def dataroot(tmp_path):
    tables = tmp_path / "data" / "v1.0-mini"
    tables.mkdir(parents=True)
    for table in TABLES:
        (tables / f"{table}.json").write_text("[]")
    return tables.parent


def test_configs_and_the_stages_that_get_another_key(geomim, dataroot, tmp_path):
    (tmp_path / "a.yaml").write_text("depth: {margin: 2}\n")
    (tmp_path / "b.yaml").write_text("depth: {margin: 3, workers: 2}\n")
    words = (tmp_path / "a.yaml", tmp_path / "b.yaml", "--dataroot", dataroot, "--root", tmp_path / "root")
    code, found = told(geomim, *words)
    assert (code, found["config"]) == (1, {"depth.margin": [2.0, 3.0], "depth.workers": [0, 2]})
    assert found["keys"].keys() == {"depth", "pretrain", "finetune", "evaluate"}
    assert told(geomim, words[0], *words[:1], *words[2:])[0] == 0


def test_how_a_stage_runs_changes_no_key(geomim, dataroot, tmp_path):
    (tmp_path / "a.yaml").write_text("")
    (tmp_path / "b.yaml").write_text("depth: {workers: 2}\n")
    words = (tmp_path / "a.yaml", tmp_path / "b.yaml", "--dataroot", dataroot, "--root", tmp_path / "root")
    code, found = told(geomim, *words)
    assert (code, found["config"], found["keys"]) == (1, {"depth.workers": [0, 2]}, {})


def test_presets_by_name_without_a_dataroot(geomim):
    code, found = told(geomim, "geomim-swin-b", "geomim-swin-l")
    assert (code, found["config"]["backbone.embed_dim"], found["keys"]) == (1, [128, 192], None)
    assert "not known: no dataroot is given" in geomim("diff", "geomim-swin-b", "geomim-swin-l")[1]
    assert geomim("diff", "demo", "demo")[0] == 0


def test_a_section_on_one_side_is_shown_by_its_fields(geomim):
    found = told(geomim, "demo", "geomim-swin-b")[1]
    assert found["config"]["simulate.scenes"] == [110, None]


def test_what_cannot_be_compared(geomim, tmp_path):
    artifact, other = finish(tmp_path), finish(tmp_path, stage="depth")
    unfinished = Artifact(tmp_path, "teacher", "ab" * 32)
    unfinished.begin(Recipe(stage="teacher", version=1, config={}, inputs={}))
    damaged = finish(tmp_path, sweeps=7)
    (damaged / "metrics.json").write_text((damaged / "metrics.json").read_text().replace("0.25", "0.75"))
    mistaken = tmp_path / "mistaken.yaml"
    mistaken.write_text("depth: {sweep: 1}")
    sentences = {
        ("demo", artifact): f"{artifact} is an artifact and demo a config: compare two artifacts or two configs",
        (artifact, other): "is of stage teacher and .* of depth: nothing of them compares",
        (artifact, unfinished.path): f"{unfinished.path}: is unfinished",
        (artifact, damaged): f"{damaged}: is damaged .metrics.json has other bytes than were written.; .* mends it",
        (artifact, tmp_path / "nothing"): "nothing: is no artifact's folder .* no YAML file and no preset",
        (tmp_path, artifact): f"{tmp_path}: is no artifact's folder",
        ("demo", mistaken): "unknown field depth.sweep; did you mean depth.sweeps",
    }
    for words, sentence in sentences.items():
        code, printed, said = geomim("diff", *words)
        assert (code, printed) == (2, ""), said
        assert said.count("\n") == 1
        assert re.search(sentence, said), said


def test_a_manifest_that_does_not_read(geomim, tmp_path):
    artifact, broken = finish(tmp_path), finish(tmp_path, sweeps=7)
    (broken / "manifest.json").write_text("{")
    code, printed, said = geomim("diff", artifact, broken)
    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert f"{broken / 'manifest.json'}: has format" in said or "is not what was written" in said


def test_configs_are_looked_at_without_torch_prefect_or_numpy(tmp_path):
    paths = [str(finish(tmp_path / name)) for name in ("here", "there")]
    commands = (["config", "show"], ["config", "schema"], ["diff", "demo", "demo-fit"], ["diff", *paths])
    code = "import sys; from flows.cli import app\n" + "\n".join(
        f"app({words!r}, standalone_mode=False)" for words in commands
    )
    code += "\nprint([m for m in ('torch', 'prefect', 'numpy', 'zarr') if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
