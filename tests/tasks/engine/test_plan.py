"""Plans of the real stages over a folder of tables: no stage runs here."""

import json
import shutil

import pytest

from common.errors import UserError
from dataroot.names import TABLES
from storage.lock import locked
from storage.manifest import Recipe
from tasks.engine.config import load_config
from tasks.engine.dag import why_left_out
from tasks.engine.plan import make_plan, select, with_inputs_checked
from tasks.engine.stage import Step

ALL = [
    "ingest",
    "fit",
    "teacher",
    "depth",
    "pretrain",
    "finetune",
    "evaluate",
    "finetune-baseline",
    "evaluate-baseline",
]


@pytest.fixture
def dataroot(tmp_path):
    tables = tmp_path / "data" / "v1.0-mini"
    tables.mkdir(parents=True)
    for table in TABLES:
        (tables / f"{table}.json").write_text(json.dumps([{"token": table}]))
    return tables.parent


@pytest.fixture
def plan(tmp_path, dataroot):
    def make(*overrides, dataroot=dataroot, forced=()):
        return make_plan(load_config(None, list(overrides), dataroot), tmp_path / "root", forced)

    return make


def finish(planned):
    """Stand in for the stage's run: an artifact with one file."""
    step = planned.step
    step.artifact.begin(step.recipe)
    (step.artifact.path / "result").write_text(planned.name)
    step.artifact.finish(step.recipe, {}, 1.0, {})


def states(plan):
    return {planned.name: planned.state for planned in plan}


def test_at_first_all_runs(plan):
    first = plan()
    assert list(states(first)) == ALL
    assert {p.why for p in first} == {"never run"}
    assert set(states(first).values()) == {"run"}


def test_a_plan_makes_no_root(plan, tmp_path):
    """A mistyped --root of `status` or a dry run must not stay behind."""
    plan()
    assert not (tmp_path / "root").exists()


def test_what_is_there_is_cached(plan):
    for planned in plan():
        finish(planned)
    assert set(states(plan()).values()) == {"cached"}


def test_one_depth_field_reruns_depth_and_what_follows(plan):
    for planned in plan():
        finish(planned)
    changed = plan("depth.margin=3")
    assert states(changed) == {
        "ingest": "cached",
        "fit": "cached",
        "teacher": "cached",
        "depth": "run",
        "pretrain": "run",
        "finetune": "run",
        "evaluate": "run",
        "finetune-baseline": "cached",
        "evaluate-baseline": "cached",
    }
    why = {p.name: p.why for p in changed}
    assert why["depth"] == "depth.margin: 1.0 -> 3.0"
    assert why["pretrain"] == "input depth changed"
    assert why["finetune"] == "input pretrain changed"
    assert why["evaluate"] == "input finetune changed"


def test_a_changed_table_is_named(plan, dataroot):
    for planned in plan():
        finish(planned)
    (dataroot / "v1.0-mini" / "sample.json").write_text("[]")
    changed = plan()
    assert set(states(changed).values()) == {"run"}
    assert changed[0].why == "file v1.0-mini/sample.json changed"


def test_the_dataroots_place_does_not_matter(plan, dataroot, tmp_path):
    for planned in plan():
        finish(planned)
    shutil.copytree(dataroot, tmp_path / "elsewhere")
    assert set(states(plan(dataroot=tmp_path / "elsewhere")).values()) == {"cached"}


def test_the_nearest_artifact_gives_the_reason(plan):
    for overrides in (("depth.margin=2", "depth.min_depth=2"), ("depth.margin=2.5",)):
        finish(plan(*overrides)[3])
    assert plan("depth.margin=3")[3].why == "depth.margin: 2.5 -> 3.0"


def test_weights_from_a_file_need_no_fit_and_their_content_is_in_the_key(plan, tmp_path):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"one")
    first = plan(f"teacher.weights={weights}")
    assert "fit" not in states(first)
    moved = tmp_path / "moved.pth"
    shutil.copy(weights, moved)
    assert plan(f"teacher.weights={moved}")[1].step.artifact.key == first[1].step.artifact.key
    weights.write_bytes(b"two")
    assert plan(f"teacher.weights={weights}")[1].step.artifact.key != first[1].step.artifact.key


def test_a_backbone_of_the_users_needs_no_pretraining(plan, tmp_path):
    swin = tmp_path / "swin.pth"
    swin.write_bytes(b"one")
    assert list(states(plan(f"finetune.init={swin}"))) == ["ingest", *ALL[5:]]
    assert list(states(plan("finetune.init=random", "finetune.depth_weight=3"))) == ["ingest", "depth", *ALL[5:7]]
    assert list(states(plan(f"finetune.init={swin}", "finetune.baseline=false"))) == ["ingest", *ALL[5:7]]


def test_the_baseline_begins_where_pretraining_does(plan, tmp_path):
    swin, other = tmp_path / "swin.pth", tmp_path / "other.pth"
    swin.write_bytes(b"one")
    other.write_bytes(b"two")
    alone = plan(f"finetune.init={swin}", "finetune.baseline=false")
    keys = {p.name: p.step.artifact.key for p in plan(f"pretrain.init={swin}")}
    assert keys["finetune-baseline"] == alone[1].step.artifact.key
    assert list(states(plan(f"finetune.init={swin}", f"pretrain.init={swin}"))) == ["ingest", *ALL[5:7]]
    assert list(states(plan(f"finetune.init={other}", f"pretrain.init={swin}"))) == ["ingest", *ALL[5:]]


def test_the_baseline_is_one_for_all_pretrainings(plan):
    keys = {p.name: p.step.artifact.key for p in plan()}
    other = {p.name: p.step.artifact.key for p in plan("pretrain.method.mask_ratio=0.75")}
    alone = {p.name: p.step.artifact.key for p in plan("finetune.init=random")}
    assert {name for name in keys if keys[name] != other[name]} == {"pretrain", "finetune", "evaluate"}
    assert alone["finetune"] == keys["finetune-baseline"]
    assert alone["evaluate"] == keys["evaluate-baseline"]
    inputs = {p.name: list(p.step.inputs.artifacts) for p in plan("finetune.depth_weight=3")}
    assert inputs["finetune"] == ["ingest", "depth", "pretrain"]
    assert inputs["finetune-baseline"] == ["ingest", "depth"]
    steps = {p.name: p.step for p in plan()}
    assert steps["evaluate-baseline"].inputs["finetune"] == steps["finetune-baseline"].artifact


def test_a_detector_to_evaluate_needs_the_index_alone_and_its_content_is_in_the_key(plan, tmp_path):
    detector = tmp_path / "epoch_20_ema.pth"
    detector.write_bytes(b"one")
    first = plan(f"evaluate.checkpoint={detector}", "finetune.depth_weight=3")
    assert list(states(first)) == ["ingest", "evaluate"]
    assert list(first[1].step.inputs.artifacts) == ["ingest"]
    shutil.move(detector, moved := tmp_path / "moved.pth")
    again = plan(f"evaluate.checkpoint={moved}", "finetune.depth_weight=3")
    assert again[1].step.artifact.key == first[1].step.artifact.key
    moved.write_bytes(b"two")
    changed = plan(f"evaluate.checkpoint={moved}", "finetune.depth_weight=3")
    assert changed[1].step.artifact.key != first[1].step.artifact.key


def test_a_stage_that_nobody_wants_says_why():
    config = load_config(None, ["finetune.init=random"])
    for name in ("fit", "teacher", "depth", "pretrain"):
        assert why_left_out(config, name) == "finetune.init is 'random', not 'pretrain'"
    config = load_config(None, ["evaluate.checkpoint=a.pth"])
    assert why_left_out(config, "pretrain") == "evaluate.checkpoint is evaluated as it is"
    assert why_left_out(load_config(None, ["teacher.weights=a.pth"]), "fit") == "teacher.weights is 'a.pth', not 'fit'"
    assert not any(why_left_out(config, name) for name in ("ingest", "evaluate"))


def test_missing_weights_are_named(plan):
    with pytest.raises(UserError, match=r"teacher\.weights: there is no file nowhere\.pth"):
        plan("teacher.weights=nowhere.pth")


def test_an_interrupted_stage_says_how_far_it_came(plan):
    step = plan()[4].step
    step.artifact.begin(step.recipe)
    step.artifact.write_progress(3, 10)
    planned = plan()[4]
    assert (planned.state, planned.why) == ("resume", "3 of 10 done")


def test_a_stage_that_somebody_works_on_is_running(plan):
    step = plan()[4].step
    step.artifact.begin(step.recipe)
    step.artifact.write_progress(3, 10)
    with locked(step.artifact.path, "geomim pretrain"):
        assert (plan()[4].state, plan()[4].why) == ("running", "3 of 10 done")


def test_a_damaged_artifact_runs_again_and_says_why(plan):
    finish(plan()[0])
    (plan()[0].step.artifact.path / "result").unlink()
    assert (plan()[0].state, plan()[0].why) == ("run", "damaged: result is gone")


def test_forced(plan):
    finish(plan()[0])
    assert plan(forced=["ingest"])[0].state == "run"
    assert plan(forced=["ingest"])[0].why == "forced"


def test_what_a_run_reads_is_checked_beforehand(plan):
    for planned in plan()[:4]:
        finish(planned)
    (plan()[2].step.artifact.path / "result").write_text("taecher")  # of the same size
    assert states(plan())["teacher"] == "cached"
    checked = with_inputs_checked(plan()[:5])
    assert [name for name, state in states(checked).items() if state != "cached"] == ["teacher", "pretrain"]
    assert checked[2].why == "damaged: result has other bytes than were written"
    assert states(with_inputs_checked(plan()[:4]))["teacher"] == "cached"  # nobody among these reads it


def test_a_finished_folder_of_the_users_own_files_is_cached(plan):
    finish(plan()[0])
    (plan()[0].step.artifact.path / "notes.md").write_text("mine")
    assert plan()[0].state == "cached"


def test_a_step_goes_to_another_process_as_it_is(plan):
    for planned in plan("depth.workers=3"):
        again = Step.from_json(json.loads(json.dumps(planned.step.as_json())))
        assert again == planned.step
        assert again.recipe.key == planned.step.artifact.key


def test_no_dataroot_is_said_not_raised(plan, tmp_path):
    missing = plan(dataroot=tmp_path / "nowhere")
    assert all(p.step is None and "nowhere is not there" in p.why for p in missing)
    assert missing[0].as_json()["key"] is None


def test_another_version_of_the_tables_is_offered(plan, tmp_path, dataroot):
    shutil.move(dataroot / "v1.0-mini", dataroot / "v1.0-trainval")
    assert "add --version v1.0-trainval" in plan()[0].why


def test_from_and_to(plan):
    with pytest.raises(UserError, match="--from depth: ingest is not cached"):
        select(plan(), "depth", None)
    finish(plan()[0])
    assert [p.name for p in select(plan(), "depth", "depth")] == ["depth"]
    assert [p.name for p in select(plan(), None, "teacher")] == ["ingest", "fit", "teacher"]
    assert [p.name for p in select(plan(), None, "finetune")] == ALL
    with pytest.raises(UserError, match="comes after"):
        select(plan(), "depth", "ingest")
    with pytest.raises(UserError, match="--from evaluate: finetune is not cached"):
        select(plan(), "evaluate", "evaluate")
    for planned in plan():
        finish(planned)
    for last in ("evaluate", "finetune", None):  # the training of the second arm stands between the evaluations
        assert [p.name for p in select(plan(), "evaluate", last)] == ["evaluate", "evaluate-baseline"]


def test_the_key_is_the_recipes(plan):
    for planned in plan():
        assert planned.step.artifact.key == Recipe(**planned.step.recipe.model_dump()).key
