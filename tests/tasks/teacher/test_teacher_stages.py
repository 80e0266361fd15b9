"""The stages `fit` and `teacher` on a small world: what they leave, and going on after an interruption."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.lidar.detector import voxel_batch
from storage.bev import BevReader
from tasks.batches.points import load_points
from tasks.errors import UserError
from tasks.teacher import fit, teacher
from tasks.teacher.config import FitConfig, LidarConfig, TeacherConfig
from tasks.teacher.network import build_detector, build_encoder
from tasks.teacher.weights import read_tensors

LIDAR = LidarConfig(
    range=(-8, -6.4, -4, 8, 6.4, 4),
    voxel_size=(0.2, 0.2, 0.25),
    sweeps=1,
    widths=(4, 4, 8, 8),
    out_width=8,
    blocks=1,
)
FIT = FitConfig(
    lidar=LIDAR,
    backbone_widths=(8, 8),
    backbone_layers=(1, 1),
    neck_width=8,
    class_groups="one",
    head_width=8,
    epochs=4,
    batch=2,
    warmup=2,
    threads=1,
    seconds_between_saves=1e-9,
)


def test_fit_leaves_a_detector_and_goes_on_bit_for_bit(world, folder, monkeypatch):
    whole = folder("whole")
    summary = fit.run(FIT, world.inputs, whole)
    assert summary == {"steps": 10, "train_samples": 5}  # val has no box that counts, so no scores
    assert whole.progress == (10, 10)
    assert not (whole.path / "checkpoint.pt").exists()
    build_detector(FIT).load_state_dict(load_file(whole.path / fit.WEIGHTS))

    stopped = folder("stopped")
    real, seen = fit.augmented, []

    def dies_in_step_six(*arguments):
        seen.append(None)
        if len(seen) > 12:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(fit, "augmented", dies_in_step_six)
    with pytest.raises(KeyboardInterrupt):
        fit.run(FIT, world.inputs, stopped)
    monkeypatch.setattr(fit, "augmented", real)
    assert 0 < stopped.progress[0] < 10
    fit.run(FIT, world.inputs, stopped)
    assert (whole.path / fit.WEIGHTS).read_bytes() == (stopped.path / fit.WEIGHTS).read_bytes()

    monkeypatch.setattr(fit, "augmented", dies_in_step_six)  # killed in the evaluation: nothing is trained again
    assert fit.run(FIT, world.inputs, stopped) == summary


def test_a_loss_that_is_not_finite_names_the_samples(world, folder):
    np.full((50, 5), [1, 1, 0, np.inf, 0], np.float32).tofile(world.dataroot / "2.bin")
    with pytest.raises(UserError, match="sample2"):
        fit.run(FIT, world.inputs, folder("fit"))


def test_fit_without_a_train_split(world, folder, monkeypatch):
    monkeypatch.setattr(fit.Index, "samples", lambda self, split: np.zeros(0, int))
    with pytest.raises(UserError, match="no sample of the train split"):
        fit.run(FIT, world.inputs, folder("fit"))


def test_teacher_writes_what_the_encoder_says(world, folder, monkeypatch):
    config = TeacherConfig(lidar=LIDAR, weights="random", part_size=4)
    out = folder("teacher")
    real = teacher.load_points

    def dies_at_sample_five(index, dataroot, sample, sweeps):
        if sample == 5:
            raise KeyboardInterrupt
        return real(index, dataroot, sample, sweeps)

    monkeypatch.setattr(teacher, "load_points", dies_at_sample_five)
    with pytest.raises(KeyboardInterrupt):
        teacher.run(config, world.inputs, out)
    monkeypatch.setattr(teacher, "load_points", real)
    first = (out.path / "bev.zarr/bev/c/0/0/0/0").stat().st_mtime_ns
    summary = teacher.run(config, world.inputs, out)
    assert (out.path / "bev.zarr/bev/c/0/0/0/0").stat().st_mtime_ns == first  # the part that was done is left alone
    assert summary == {"samples": 6, "shape": [8, 10, 8], "weights": "random"}

    reader = BevReader(out.path / "bev.zarr")
    assert reader.tokens == list(world.index.token)
    torch.manual_seed(0)
    encoder = build_encoder(LIDAR)
    clouds = [torch.from_numpy(load_points(world.index, world.dataroot, sample, 1)) for sample in range(6)]
    with torch.inference_mode():  # random weights take the batch-norm statistics of the first sample
        for module in encoder.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.momentum = 1.0
        encoder.train()(*voxel_batch(clouds[:1], LIDAR.grid))
        encoder.eval()
    for sample, points in enumerate(clouds):
        with torch.inference_mode():
            wanted = encoder(*voxel_batch([points], LIDAR.grid))[0].numpy()
        np.testing.assert_array_equal(reader[sample], wanted.astype(np.float16))
        assert reader[sample].any()


def test_teacher_takes_the_fitted_encoder_and_files(world, folder):
    torch.manual_seed(5)
    detector = build_detector(FIT)
    fitted = folder("fit")
    save_file(detector.state_dict(), fitted.path / fit.WEIGHTS)
    world.inputs["fit"] = fitted
    teacher.run(TeacherConfig(lidar=LIDAR, weights="fit"), world.inputs, a := folder("a"))
    foreign = {f"pts_middle_encoder.{k}": t for k, t in detector.encoder.state_dict().items()}
    torch.save({"state_dict": foreign, "meta": {"epoch": 1}}, a.path / "mm.pth")
    teacher.run(TeacherConfig(lidar=LIDAR, weights=str(a.path / "mm.pth")), world.inputs, b := folder("b"))
    first, second = (BevReader(x.path / "bev.zarr")[3] for x in (a, b))
    assert first.any()
    assert np.array_equal(first, second)


class Harmful:
    def __reduce__(self):
        return print, ("this must not run",)


def test_bad_checkpoints_each_have_their_sentence(world, folder, tmp_path, capsys):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Harmful()}, tmp_path / "harmful.pth")
    torch.save({"a": torch.zeros(10_000)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:5000])
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"backbone.weight": torch.zeros(1)}, tmp_path / "other.pth")
    for name, sentence in {
        "none.pth": "no such checkpoint",
        "harmful.pth": "refused",
        "cut.pth": "no whole checkpoint",
        "text.pth": "refused|no whole checkpoint",
        "text.safetensors": "no whole checkpoint",
        "list.pth": "no tensors",
        "other.pth": "does not fit the network.*no sparse encoder",
    }.items():
        config = TeacherConfig(lidar=LIDAR, weights=str(tmp_path / name))
        with pytest.raises(UserError, match=sentence):
            teacher.run(config, world.inputs, folder("out-" + name))
    assert "must not run" not in capsys.readouterr().out
    with pytest.raises(UserError, match="no such checkpoint"):
        read_tensors(tmp_path)
