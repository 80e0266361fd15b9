"""`geomim verify`, `du`, `gc`, `pin` and `cp` on a root of small artifacts."""

import json
import os
import time

import pytest
from typer.testing import CliRunner

from common.errors import DataError, UserError
from dataroot.names import TABLES
from flows.cli import app
from flows.experiment.plan import runs
from flows.housekeeping import _delete
from storage.artifact import Artifact
from storage.lock import lock_file, locked
from storage.manifest import MANIFEST, Recipe
from tasks.engine.config import load_config
from tasks.engine.plan import make_plan


@pytest.fixture
def dataroot(tmp_path):
    tables = tmp_path / "data" / "v1.0-mini"
    tables.mkdir(parents=True)
    for table in TABLES:
        (tables / f"{table}.json").write_text("[]")
    return tables.parent


@pytest.fixture
def root(tmp_path, dataroot):
    """Every stage of the default config, finished, and a depth of other settings."""
    for overrides in ([], ["depth.margin=2"]):
        for planned in make_plan(load_config(None, overrides, dataroot), tmp_path / "root"):
            artifact = planned.step.artifact
            if not artifact.is_intact():
                artifact.begin(planned.step.recipe)
                (artifact.path / "result").write_text(planned.stage.name)
                artifact.finish(planned.step.recipe, {}, 1.0, {"step": planned.step.as_json()})
    return tmp_path / "root"


def geomim(*words):
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def paths(root, stage):
    return sorted(p.parent for p in root.glob(f"{stage}/*/{MANIFEST}"))


def test_verify_names_what_is_damaged(root):
    rows = json.loads(geomim("verify", "--root", root, "--json"))
    assert {row["state"] for row in rows} == {"whole"}
    victim = paths(root, "teacher")[0]
    (victim / "result").write_text("taecher")
    with pytest.raises(DataError, match=f"1 of {len(rows)} artifacts are damaged: `geomim repair {victim}`"):
        geomim("verify", "--root", root)
    with pytest.raises(DataError):
        geomim("verify", victim, "--root", root)
    assert "whole" in geomim("verify", "depth", "--root", root)
    with pytest.raises(UserError, match="nothing: is neither a stage nor an artifact's folder"):
        geomim("verify", "nothing", "--root", root)


def test_du_says_how_much_and_who_needs_it(root):
    told = json.loads(geomim("du", "--root", root, "--json"))
    assert told["bytes"] == sum(row["bytes"] for row in told["artifacts"])
    needed = {row["stage"]: row["needed_by"] for row in told["artifacts"]}
    assert needed["fit"] == 1
    assert "ingest" in geomim("du", "--root", root)


def test_gc_touches_nothing_without_delete_and_only_leftovers_without_a_config(root):
    (root / "depth" / ".trash-x").mkdir()
    before = sorted(root.rglob("*"))
    assert "left by a killed run" in geomim("gc", "--root", root, "--newer-than", 0)
    assert sorted(root.rglob("*")) == before
    geomim("gc", "--root", root, "--newer-than", 0, "--delete")
    assert not (root / "depth" / ".trash-x").exists()
    assert len(paths(root, "*")) == len([p for p in before if p.name == MANIFEST])


def test_gc_keeps_what_a_config_a_pin_or_a_newer_artifact_needs(root, dataroot, tmp_path):
    config = tmp_path / "own.yaml"
    config.write_text(f"dataroot: {dataroot}\n")
    ours = {p.step.artifact.path for p in make_plan(load_config(config), root)}
    foreign = {p for p in paths(root, "*") if p not in ours}
    assert {p.parent.name for p in foreign} == {"depth", "pretrain", "finetune", "evaluate"}
    options = ("gc", "--root", root, "--config", config, "--json")
    assert json.loads(geomim(*options)) == []  # all are new
    old = time.time() - 30 * 86_400
    for path in paths(root, "*"):
        os.utime(path / MANIFEST, (old, old))
    assert {row["path"] for row in json.loads(geomim(*options))} == set(map(str, foreign))
    pretrain = next(p for p in foreign if p.parent.name == "pretrain")
    geomim("pin", pretrain, "--note", "table 2")
    assert "table 2" in geomim("pin", "--root", root)
    left = {p for p in foreign if p.parent.name in ("finetune", "evaluate")}  # the pinned one was made from that depth
    assert {row["path"] for row in json.loads(geomim(*options))} == set(map(str, left))
    geomim("pin", pretrain, "--remove")
    with locked(pretrain, "geomim pretrain"):
        rows = json.loads(geomim(*options, "--delete"))
    assert {row["path"]: row["deleted"] for row in rows} == {str(p): p != pretrain for p in foreign}
    assert set(paths(root, "*")) == ours | {pretrain}


def aged(root) -> None:
    """As if all of it had been finished a month ago."""
    old = time.time() - 30 * 86_400
    for path in paths(root, "*"):
        os.utime(path / MANIFEST, (old, old))


def test_gc_keeps_the_artifact_in_which_the_weights_lie_that_a_config_names(root, dataroot, tmp_path):
    config = tmp_path / "own.yaml"
    config.write_text(f"dataroot: {dataroot}\n")
    options = ("gc", "--root", root, "--config", config, "--json")
    aged(root)
    gone = {row["path"] for row in json.loads(geomim(*options))}
    foreign = next(p for p in paths(root, "pretrain") if str(p) in gone)
    config.write_text(f"dataroot: {dataroot}\nfinetune: {{init: {foreign / 'result'}}}\n")
    left = {row["path"] for row in json.loads(geomim(*options))}
    assert not left & {str(foreign), *(str(p) for p in paths(root, "teacher") + paths(root, "fit"))}
    depths = set(map(str, paths(root, "depth")))
    assert len(depths - left) == 1  # that which the named one was made from


def test_gc_keeps_all_arms_of_an_experiment(root, dataroot, tmp_path):
    config = tmp_path / "gain.yaml"
    config.write_text(f"dataroot: {dataroot}\nexperiment: {{fractions: [1.0], seeds: 2}}\n")
    loaded = load_config(config)
    steps = [run.steps(root) for run in runs(loaded)]
    ours = {step.artifact.path for of_run in steps for step in of_run.values()}
    for step in (step for of_run in steps for step in of_run.values()):
        if not step.artifact.is_intact():
            step.artifact.begin(step.recipe)
            step.artifact.finish(step.recipe, {}, 1.0, {"step": step.as_json()})
    recipe = Recipe(
        stage="experiment",
        version=1,
        config={},
        inputs={str(n): of_run["evaluate"].artifact.key for n, of_run in enumerate(steps)},
    )
    result = Artifact(root, "experiment", recipe.key)
    result.begin(recipe)
    result.finish(recipe, {}, 1.0, {"inputs": {n: ["evaluate", key] for n, key in recipe.inputs.items()}})
    aged(root)
    rows = {row["path"] for row in json.loads(geomim("gc", "--root", root, "--config", config, "--json"))}
    assert rows
    assert not rows & set(map(str, {*ours, result.path}))
    geomim("pin", result.path)
    other = tmp_path / "other.yaml"
    other.write_text(f"dataroot: {dataroot}\ndepth: {{margin: 5}}\n")
    rows = {row["path"] for row in json.loads(geomim("gc", "--root", root, "--config", other, "--json"))}
    assert not rows & set(map(str, {*ours, result.path}))


def test_gc_leaves_alone_what_is_none_of_its_business(root, dataroot, tmp_path):
    """A folder of the user's, and what no geomim of today can read."""
    (root / "exports" / "site").mkdir(parents=True)
    (root / "exports" / "site" / MANIFEST).write_text('{"name": "a web site"}')
    old = paths(root, "depth")[0]
    (old / MANIFEST).write_text("{}")
    config = tmp_path / "own.yaml"
    config.write_text(f"dataroot: {dataroot}\ndepth: {{margin: 5}}\n")
    aged(root)
    geomim("gc", "--root", root, "--config", config, "--newer-than", 0, "--delete")
    assert (root / "exports" / "site" / MANIFEST).exists()
    assert (old / MANIFEST).exists()


def test_a_lock_that_was_taken_up_since_it_was_listed_stays(tmp_path):
    with locked(tmp_path / "x", "geomim depth"):
        assert "`geomim depth`" in _delete(lock_file(tmp_path / "x"), time.time())
        assert lock_file(tmp_path / "x").exists()
    lock_file(tmp_path / "x").touch()
    assert _delete(lock_file(tmp_path / "x"), time.time()) is None
    assert list(tmp_path.iterdir()) == []


def test_what_was_finished_since_gc_looked_stays(root):
    path = paths(root, "depth")[0]
    assert _delete(path, time.time() - 3600) == "it has changed meanwhile"
    assert path.exists()


def test_gc_asks_for_the_data_that_a_config_needs(root, tmp_path):
    config = tmp_path / "own.yaml"
    config.write_text("dataroot: nowhere\n")
    with pytest.raises(UserError, match="nobody knows which artifacts are its own"):
        geomim("gc", "--root", root, "--config", config)


def test_cp_takes_along_what_it_was_made_from(root, tmp_path):
    teacher = paths(root, "teacher")[0]
    geomim("cp", teacher, tmp_path / "a")
    assert [p.parent.name for p in paths(tmp_path / "a", "*")] == ["teacher"]
    geomim("cp", teacher, tmp_path / "b", "--inputs")
    assert sorted(p.parent.name for p in paths(tmp_path / "b", "*")) == ["fit", "ingest", "teacher"]
    geomim("cp", root, tmp_path / "c")
    assert len(paths(tmp_path / "c", "*")) == len(paths(root, "*"))
    with pytest.raises(UserError, match="holds no finished artifact"):
        geomim("cp", tmp_path / "data", tmp_path / "d")


@pytest.mark.parametrize("command", ["verify", "du", "gc", "status"])
def test_a_root_that_is_none_is_one_sentence(tmp_path, command):
    (tmp_path / "file").write_text("x")
    for root, words in {
        tmp_path / "file": "is a file; name a folder",
        tmp_path / ("x" * 300): "255 bytes at most",
        "ftp://bucket/x": "is no object root; write s3://BUCKET/PREFIX",
    }.items():
        with pytest.raises(UserError, match=words):
            geomim(command, "--root", root)


def test_a_root_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        geomim("verify", "--root", tmp_path / "nowhere")


def test_a_recipe_alone_is_unfinished_work(tmp_path):
    artifact = Artifact(tmp_path, "depth", "0" * 64)
    artifact.begin(Recipe(stage="depth", version=1, config={}, inputs={}))
    assert "unfinished" in geomim("verify", "--root", tmp_path)
