"""The stage `fit` on a small world: what it leaves, and going on after an interruption."""

import json

import numpy as np
import pytest
import zarr
from safetensors.torch import load_file

from batches import voxels
from common.errors import DataError, UserError
from damages import damaged_in_turn, noise
from tasks.teacher import fit
from tasks.teacher.network import WEIGHTS, build_detector


def test_fit_leaves_a_detector_and_goes_on_bit_for_bit(world, folder, small_fit, monkeypatch):
    whole = folder("whole")
    summary = fit.run(small_fit, world.inputs, whole)
    assert summary == {"steps": 10, "train_samples": 5}  # val has no box that counts, so no scores
    assert whole.progress == (10, 10)
    build_detector(small_fit).load_state_dict(load_file(whole.path / WEIGHTS))

    stopped = folder("stopped")
    real, seen = voxels.augmented, []

    def dies_in_step_six(*arguments):
        seen.append(None)
        if len(seen) > 12:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(voxels, "augmented", dies_in_step_six)
    with pytest.raises(KeyboardInterrupt):
        fit.run(small_fit, world.inputs, stopped)
    monkeypatch.setattr(voxels, "augmented", real)
    assert 0 < stopped.progress[0] < 10
    fit.run(small_fit, world.inputs, stopped)
    assert (whole.path / WEIGHTS).read_bytes() == (stopped.path / WEIGHTS).read_bytes()

    monkeypatch.setattr(voxels, "augmented", dies_in_step_six)  # killed in the evaluation: nothing is trained again
    assert fit.run(small_fit, world.inputs, stopped) == summary


def poison(world, sample: int) -> None:
    """A finite velocity in the index whose loss is not."""
    boxes = zarr.open_group(world.inputs["ingest"].path / "index.zarr", mode="r+")["box_velocity"]
    boxes[2 * sample : 2 * sample + 2] = 3e38


def test_steps_of_a_poisoned_sample_are_skipped_and_told(world, folder, small_fit):
    poison(world, 2)
    summary = fit.run(small_fit, world.inputs, out := folder("fit"))
    rows = [json.loads(line) for line in (out.path / "log" / "metrics.jsonl").read_text().splitlines()]
    skipped = [row for row in rows if "skipped" in row]
    assert 2 <= len(skipped) == summary["skipped_steps"] < len(rows) == 10
    assert all("sample2" in row["samples"] for row in skipped)
    assert all(value.isfinite().all() for value in load_file(out.path / WEIGHTS).values())


def test_where_all_samples_but_one_are_poisoned_the_run_ends_and_goes_on_without_them(world, folder, small_fit):
    """To the weights of a run that was never told of them."""
    poisoned = [f"sample{s}" for s in range(4)]
    for sample in range(4):
        poison(world, sample)
    with pytest.raises(UserError, match=r"or go on without them by --set 'fit\.skip_samples=") as ended:
        fit.run(small_fit, world.inputs, stopped := folder("stopped"))
    named = json.loads(str(ended.value).partition("skip_samples=")[2].removesuffix("'"))
    assert set(named) >= set(poisoned)
    going_on = small_fit.model_copy(update={"skip_samples": tuple(poisoned)})
    summary = fit.run(going_on, world.inputs, stopped)
    assert summary == {"steps": 10, "train_samples": 1, "skip_samples": poisoned}
    whole = folder("whole")
    assert fit.run(going_on, world.inputs, whole) == summary
    assert (whole.path / WEIGHTS).read_bytes() == (stopped.path / WEIGHTS).read_bytes()


def test_what_is_left_out_already_stands_in_the_sentence(world, folder, small_fit):
    """The option that it gives takes the place of the one before."""
    for sample in range(4):
        poison(world, sample)
    config = small_fit.model_copy(update={"skip_samples": ("sample0",)})
    with pytest.raises(UserError) as ended:
        fit.run(config, world.inputs, folder("fit"))
    named = json.loads(str(ended.value).partition("skip_samples=")[2].removesuffix("'"))
    assert named[0] == "sample0"
    assert len(set(named)) == len(named) > 1


def test_a_sample_whose_objects_are_pasted_is_named(world, folder, small_fit):
    """Its boxes are in the loss; where none of them found a place, it is not."""
    poison(world, 2)
    config = small_fit.model_copy(update={"paste": 3, "class_groups": "six", "epochs": 6})
    fit.run(config, world.inputs, out := folder("fit"))
    rows = [json.loads(line) for line in (out.path / "log" / "metrics.jsonl").read_text().splitlines()]
    skipped = [row["samples"] for row in rows if "skipped" in row]
    assert all("sample2" in samples for samples in skipped)
    assert any(len(samples) > config.batch_size for samples in skipped)
    assert all(len(samples) == len(set(samples)) for samples in skipped)


def test_samples_to_skip_that_are_not_there(world, folder, small_fit):
    nobody = small_fit.model_copy(update={"skip_samples": ("sample7",)})
    with pytest.raises(UserError, match="skip_samples: the index has no sample sample7"):
        fit.run(nobody, world.inputs, folder("fit"))
    everybody = small_fit.model_copy(update={"skip_samples": tuple(f"sample{s}" for s in range(5))})
    with pytest.raises(UserError, match="skip_samples: no sample is left to train on"):
        fit.run(everybody, world.inputs, folder("fit2"))


def test_every_damaged_file_of_an_interrupted_fit_is_made_again(world, folder, small_fit, monkeypatch):
    """Interrupted in its evaluation, when training was over: weights that are there say nothing of what they hold.

    (Other damages: in the tests of `pretrain` and `finetune`; each of a checkpoint: training/test_checkpoint.py.)
    """
    fit.run(small_fit, world.inputs, whole := folder("whole"))

    def dies(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "_evaluate", dies)
    with pytest.raises(KeyboardInterrupt):
        fit.run(small_fit, world.inputs, stopped := folder("stopped"))
    monkeypatch.undo()
    seen = []
    for name in damaged_in_turn(stopped.path, noise):
        seen.append(name)
        fit.run(small_fit, world.inputs, stopped)
        assert (whole.path / WEIGHTS).read_bytes() == (stopped.path / WEIGHTS).read_bytes(), name
    assert {WEIGHTS, ".checkpoint.pt", ".checkpoint.pt.before", "log/metrics.jsonl"} < set(seen)


def test_fit_without_a_train_split(world, folder, small_fit, monkeypatch):
    monkeypatch.setattr(fit.Index, "samples", lambda self, split: np.zeros(0, int))
    sentence = r"none of the 1 scenes of v1.0-mini .* is in the train split; name .* in v1.0-mini/splits.json"
    with pytest.raises(UserError, match=sentence):
        fit.run(small_fit, world.inputs, folder("fit"))


def test_every_head_and_pasted_objects_learn(world, folder, small_fit):
    for name, change in {
        "transfusion": {"head": "transfusion", "queries": 5, "upsample": 2},
        "pasted": {"paste": 3, "class_groups": "six"},
    }.items():
        fit.run(small_fit.model_copy(update=change), world.inputs, out := folder(name))
        rows = [json.loads(line) for line in (out.path / "log" / "metrics.jsonl").read_text().splitlines()]
        assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_batch_of_one_voxel_is_one_sentence(world, folder, small_fit):
    for s in range(6):
        np.array([[1, 1, 0, 5, 0]], np.float32).tofile(world.dataroot / f"{s}.bin")
    config = small_fit.model_copy(update={"batch_size": 1, "lidar": small_fit.lidar.model_copy(update={"sweeps": 0})})
    with pytest.raises(DataError, match=r"fit: sample\d: a single voxel of lidar.range has points in it.*leave_out"):
        fit.run(config, world.inputs, folder("fit"))
