import pytest

from common.errors import UserError
from flows.experiment.plan import runs
from tasks.engine.config import PRESETS, load_config
from tasks.engine.dag import build_dag


def planned(*overrides):
    return list(runs(load_config(None, [f"experiment.{override}" for override in overrides])))


def test_every_arm_with_every_seed_at_every_fraction():
    made = planned("arms=[scratch, pixels, geomim]", "seeds=2", "fractions=[0.1, 1]")
    assert len(made) == 12
    assert len({(run.arm, run.fraction, run.seed) for run in made}) == 12
    for run in made:
        finetune = run.config.finetune
        assert (finetune.seed, finetune.label_fraction) == (run.seed, run.fraction)
        assert run.config.pretrain.seed == run.seed
        assert run.config.pretrain.method.name == ("pixels" if run.arm == "pixels" else "geomim")
        assert run.config.finetune.init == ("random" if run.arm == "scratch" else "pretrain")


def test_a_run_without_pretraining_has_no_stage_of_it():
    made = {run.arm: build_dag(run.config) for run in planned("arms=[scratch, geomim]", "seeds=2")}
    assert [node.name for node in made["scratch"]] == ["ingest", "finetune", "evaluate"]
    assert [node.name for node in made["geomim"]] == [
        "ingest", "fit", "teacher", "depth", "pretrain", "finetune", "evaluate"
    ]  # fmt: skip
    assert not any(run.config.finetune.baseline for run in planned())


def test_arms_differ_in_pretraining_alone():
    made = {run.arm: run.config for run in planned("arms=[geomim, no-cross-view, no-geometry-branch]")}
    assert not made["no-cross-view"].pretrain.method.decoder.cross_view
    assert made["no-cross-view"].pretrain.method.decoder.geometry_branch
    assert not made["no-geometry-branch"].pretrain.method.decoder.geometry_branch
    for config in made.values():
        assert config.model_copy(update={"pretrain": made["geomim"].pretrain}) == made["geomim"]


def test_arms_that_render():
    fields = "{frames: 2, volume: {cell: 1.2, range: [-48, -48, -5, 48, 48, 3]}, depth_bins: [1, 50, 1], context: 16}"
    config = load_config(
        None, ["ingest.frames=1", "pretrain.method.context=24", f"experiment.mim4d={fields}",
               "experiment.arms=[geomim, mim4d, unipad, geomim+mim4d]"]
    )  # fmt: skip
    made = {run.arm: run.config.pretrain.method for run in runs(config)}
    assert made["mim4d"] == config.experiment.mim4d
    assert made["unipad"] == made["mim4d"].model_copy(update={"frames": 1})
    joint = made["geomim+mim4d"]
    assert joint.geomim == made["geomim"] == config.pretrain.method
    assert joint.mim4d.volume == made["mim4d"].volume
    assert joint.mim4d.frames == 2
    stages = {run.arm: [node.name for node in build_dag(run.config)] for run in runs(config)}
    assert stages["mim4d"] == ["ingest", "pretrain", "finetune", "evaluate"]
    assert "teacher" in stages["geomim+mim4d"]


def test_the_demo_and_the_experiment_share_their_mim4d():
    """So that a run of the one is not run again by the other."""
    demo = load_config(PRESETS / "demo-mim4d.yaml")
    made = {run.arm: run.config for run in runs(load_config(PRESETS / "experiment-mim4d.yaml")) if run.seed == 0}
    assert made["mim4d"].pretrain == demo.pretrain
    assert made["scratch"].finetune.model_copy(update={"init": "pretrain", "baseline": True}) == demo.finetune


def test_an_arm_that_renders_video_needs_its_frames():
    with pytest.raises(ValueError, match=r"set ingest\.frames to 2"):
        planned("arms=[scratch, mim4d]")


def test_pretraining_can_be_shared_by_the_seeds():
    made = planned("pretrain_seeds=false", "seeds=3")
    assert {run.config.pretrain.seed for run in made} == {0}
    assert {run.config.finetune.seed for run in made} == {0, 1, 2}


def test_values_of_a_preset_and_of_the_user_are_kept():
    config = load_config(None, ["preset=demo", "finetune.steps=77", "pretrain.method.decoder.cross_view=true"])
    for run in runs(config):
        assert run.config.finetune.steps == 77
        assert run.config.backbone == config.backbone
        assert run.config.pretrain.method.decoder.width == config.pretrain.method.decoder.width


def test_only_detectors_are_compared():
    with pytest.raises(UserError, match="compares detectors"):
        list(runs(load_config(None, ["finetune.task=segmentation"])))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("arms=[geomim]", "two at least"),
        ("arms=[geomim, geomim]", "names one twice"),
        ("arms=[geomim, best]", "experiment.arms.1"),
        ("fractions=[0, 1]", "shares above 0"),
        ("fractions=[]", "shares above 0"),
        ("seeds=1", "experiment.seeds"),
    ],
)
def test_what_compares_nothing_is_refused(override, sentence):
    with pytest.raises(UserError, match=sentence):
        planned(override)
