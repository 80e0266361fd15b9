"""The stage `fit` on a small world: what it leaves, and going on after an interruption."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file

from tasks.errors import DataError, UserError
from tasks.teacher import fit
from tasks.teacher.network import WEIGHTS, build_detector


def test_fit_leaves_a_detector_and_goes_on_bit_for_bit(world, folder, small_fit, monkeypatch):
    whole = folder("whole")
    summary = fit.run(small_fit, world.inputs, whole)
    assert summary == {"steps": 10, "train_samples": 5}  # val has no box that counts, so no scores
    assert whole.progress == (10, 10)
    assert not (whole.path / "checkpoint.pt").exists()
    build_detector(small_fit).load_state_dict(load_file(whole.path / WEIGHTS))

    stopped = folder("stopped")
    real, seen = fit.augmented, []

    def dies_in_step_six(*arguments):
        seen.append(None)
        if len(seen) > 12:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(fit, "augmented", dies_in_step_six)
    with pytest.raises(KeyboardInterrupt):
        fit.run(small_fit, world.inputs, stopped)
    monkeypatch.setattr(fit, "augmented", real)
    assert 0 < stopped.progress[0] < 10
    fit.run(small_fit, world.inputs, stopped)
    assert (whole.path / WEIGHTS).read_bytes() == (stopped.path / WEIGHTS).read_bytes()

    monkeypatch.setattr(fit, "augmented", dies_in_step_six)  # killed in the evaluation: nothing is trained again
    assert fit.run(small_fit, world.inputs, stopped) == summary


def test_a_loss_that_is_not_finite_names_the_samples(world, folder, small_fit):
    np.full((50, 5), [1, 1, 0, 3e38, 0], np.float32).tofile(world.dataroot / "2.bin")
    with pytest.raises(UserError, match="sample2"):
        fit.run(small_fit, world.inputs, folder("fit"))


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
    config = small_fit.model_copy(update={"batch": 1, "lidar": small_fit.lidar.model_copy(update={"sweeps": 0})})
    with pytest.raises(DataError, match=r"fit: sample\d: a single voxel of lidar.range has points in it.*leave_out"):
        fit.run(config, world.inputs, folder("fit"))
