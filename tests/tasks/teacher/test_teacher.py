"""The stage `teacher` on a small world: what it leaves, going on after an interruption, several processes."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from children import children_with
from common.errors import UserError
from damages import cut, emptied, noise
from dataroot.points import load_points
from in_parts import run_whole
from models.lidar.checkpoint import MIT, MMDET3D
from models.lidar.detector import voxel_batch
from storage.bev import BevReader
from storage.boxes import BoxStore
from tasks.teacher import gate as gate_module
from tasks.teacher import parts, teacher
from tasks.teacher.config import TeacherConfig
from tasks.teacher.gate import GATE
from tasks.teacher.network import WEIGHTS, build_detector, build_encoder, fit_metadata


@pytest.fixture
def fitted(world, folder, small_fit):
    """A detector of random weights in the place of a fitted one; its artifact is among the inputs."""
    torch.manual_seed(5)
    detector = build_detector(small_fit).eval()
    world.inputs["fit"] = folder("fit")
    save_file(detector.state_dict(), world.inputs["fit"].path / WEIGHTS, fit_metadata(small_fit))
    return detector


def clouds(world) -> list[torch.Tensor]:
    return [torch.from_numpy(load_points(world.index, world.dataroot, sample, 1)) for sample in range(6)]


def test_it_writes_what_the_encoder_says_and_goes_on(world, folder, small, monkeypatch):
    config = TeacherConfig(lidar=small, weights="random", part_size=4, workers=1)
    out = folder("teacher")
    real = parts.load_points

    def dies_at_sample_five(index, dataroot, sample, sweeps):
        if sample == 5:
            raise KeyboardInterrupt
        return real(index, dataroot, sample, sweeps)

    monkeypatch.setattr(parts, "load_points", dies_at_sample_five)
    with pytest.raises(KeyboardInterrupt):
        run_whole(teacher, config, world.inputs, out)
    monkeypatch.setattr(parts, "load_points", real)
    first = {p: p.stat().st_mtime_ns for p in out.path.rglob("c/0/**/*") if p.is_file()}
    summary = run_whole(teacher, config, world.inputs, out)
    assert first
    assert {p: p.stat().st_mtime_ns for p in first} == first  # the part that was done is left alone
    assert (summary["samples"], summary["shape"], summary["weights"]) == (6, [8, 10, 8], "random")
    assert summary["stored"]["encoding"] == "cells"
    assert summary["stored"]["nuscenes_train_gb"] >= 0
    assert set(summary["seconds_a_sample"]) == {"read", "voxelise", "infer", "write", "waited"}

    reader = BevReader(out.path / "bev.zarr")
    assert reader.tokens == list(world.index.token)
    torch.manual_seed(0)
    encoder = build_encoder(small)
    with torch.inference_mode():  # random weights take the batch-norm statistics of the first sample
        for module in encoder.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.momentum = 1.0
        encoder.train()(*voxel_batch(clouds(world)[:1], small.grid))
        encoder.eval()
    for sample, points in enumerate(clouds(world)):
        with torch.inference_mode():
            wanted = encoder(*voxel_batch([points], small.grid))[0].numpy()
        np.testing.assert_array_equal(reader[sample], wanted.astype(np.float16))
        assert reader[sample].any()


def test_several_processes_write_the_same(world, folder, small, fitted):
    config = TeacherConfig(lidar=small, part_size=2, gate_samples=0, detections=True, flips=True, threads=1)
    stores = []
    for workers in (1, 2):
        out = folder(f"workers{workers}")
        summary = run_whole(teacher, config.model_copy(update={"workers": workers}), world.inputs, out)
        assert summary["samples_per_second"] > 0
        stores.append((BevReader(out.path / "bev.zarr"), BoxStore(out.path / "boxes.zarr", world.index.token, 2)))
    (maps, boxes), (maps_2, boxes_2) = stores
    for sample in range(6):
        for flip in ("none", "x", "y", "xy"):
            np.testing.assert_array_equal(maps.dense(sample, flip), maps_2.dense(sample, flip))
        for a, b in zip(boxes.read(sample), boxes_2.read(sample)):
            np.testing.assert_array_equal(a, b)


def test_flips_are_those_of_the_points(world, folder, small, fitted):
    config = TeacherConfig(lidar=small, gate_samples=0, flips=True, workers=1)
    run_whole(teacher, config, world.inputs, out := folder("teacher"))
    reader = BevReader(out.path / "bev.zarr")
    points = clouds(world)[3]
    for flip, signs in {"none": (1, 1), "x": (-1, 1), "y": (1, -1), "xy": (-1, -1)}.items():
        mirrored = points * torch.tensor([*signs, 1, 1, 1])
        with torch.inference_mode():
            wanted = fitted.encoder(*voxel_batch([mirrored], small.grid))[0].numpy().astype(np.float16)
        np.testing.assert_array_equal(reader.dense(3, flip), wanted)
    assert not np.array_equal(reader.dense(3, "x"), reader[3][:, ::-1])  # strides are not symmetric


def test_neck_and_boxes(world, folder, small, fitted):
    config = TeacherConfig(lidar=small, output="neck", detections=True, gate_samples=0, workers=1, encoding="dense")
    run_whole(teacher, config, world.inputs, out := folder("teacher"))
    bev = BevReader(out.path / "bev.zarr")
    store = BoxStore(out.path / "boxes.zarr", world.index.token, config.part_size)
    assert bev.shape == (16, 10, 8)
    for sample, points in enumerate(clouds(world)):
        with torch.inference_mode():
            neck = fitted.bev_backbone(fitted.encoder(*voxel_batch([points], small.grid)))
            (wanted,) = fitted.head.predict(fitted.detect(neck))
        np.testing.assert_array_equal(bev[sample], neck[0].numpy().astype(np.float16))
        box, score, label = store.read(sample)
        np.testing.assert_allclose(box[:, :3], wanted.centers, rtol=1e-6)
        np.testing.assert_array_equal(label, wanted.labels)
        np.testing.assert_allclose(score, wanted.scores, rtol=1e-6)


def test_the_gate_stops_a_teacher_that_finds_nothing(world, folder, small, fitted):
    out = folder("teacher")
    config = TeacherConfig(lidar=small, workers=1, gate_samples=3)
    with pytest.raises(UserError, match=r"mAP 0\.\d+ on 3 annotated samples is below teacher\.min_map = 0\.3.*No cl"):
        run_whole(teacher, config, world.inputs, out)
    assert not (out.path / "bev.zarr").exists()
    summary = run_whole(teacher, config.model_copy(update={"min_map": 0.0}), world.inputs, out)
    assert summary["gate"]["samples"] == 3
    assert summary["gate"]["mAP"] < 0.3


@pytest.mark.parametrize(
    "how",
    [
        emptied,
        cut,
        noise,
        lambda data: b"[]",
        lambda data: b'{"samples": 3}',
        lambda data: b'{"samples": 3, "mAP": 0.9, "classes": {}}',
        lambda data: data.replace(b'"mAP": 0.', b'"mAP": 9.'),
    ],
    ids=["emptied", "cut", "noise", "list", "without figures", "of another hand", "another digit"],
)
def test_a_gate_whose_file_is_damaged_measures_again(world, folder, small, fitted, how):
    out = folder("teacher")
    config = TeacherConfig(lidar=small, workers=1, gate_samples=3)
    with pytest.raises(UserError) as first:
        run_whole(teacher, config, world.inputs, out)
    written = (out.path / GATE).read_bytes()
    (out.path / GATE).write_bytes(damaged := how(written))
    assert damaged != written
    with pytest.raises(UserError) as again:
        run_whole(teacher, config, world.inputs, out)
    assert str(again.value) == str(first.value)
    assert (out.path / GATE).read_bytes() == written


def test_of_two_that_measure_at_once_the_first_is_kept(world, folder, small, fitted, monkeypatch):
    """It may have finished the stage by then, and its manifest has the checksum of what it wrote."""
    config = TeacherConfig(lidar=small, workers=1, gate_samples=3, min_map=0.0)
    out, theirs = folder("teacher"), folder("theirs")
    run_whole(teacher, config, world.inputs, theirs)
    gate = json.loads((theirs.path / GATE).read_bytes())
    del gate["crc32c"]
    gate["mAP"] += 0.25  # as of another device, which rounds otherwise
    written = json.dumps(gate | {"crc32c": gate_module._sum(gate)}).encode()
    detect = gate_module._detect

    def beside_another(*args):
        (out.path / GATE).write_bytes(written)
        return detect(*args)

    monkeypatch.setattr(gate_module, "_detect", beside_another)
    assert run_whole(teacher, config, world.inputs, out)["gate"]["mAP"] == gate["mAP"]
    assert (out.path / GATE).read_bytes() == written


def test_a_gate_that_cannot_measure_is_said_or_refused(world, folder, small, fitted, monkeypatch, capsys):
    """`min_map` is a promise: where nothing can be measured it must not pass unseen."""
    torch.save(fitted.encoder.state_dict(), world.dataroot / "encoder.pth")
    encoder = {"weights": str(world.dataroot / "encoder.pth")}
    monkeypatch.setattr("tasks.teacher.gate.annotated_samples", lambda index, most: np.arange(0))
    for fields, why in (
        ({}, "no sample of train or val of v1.0-mini has a box of a detection class to find"),
        ({"gate_samples": 0}, "teacher.gate_samples is 0"),
        (encoder, "encoder.pth gives no boxes: there is no detection head that is known here"),
    ):
        config = TeacherConfig(lidar=small, workers=1, **fields)
        with pytest.raises(UserError, match=rf"{why}, so teacher.min_map = 0.9 cannot be measured"):
            run_whole(teacher, config.model_copy(update={"min_map": 0.9}), world.inputs, out := folder(why[-9:]))
        assert not (out.path / "bev.zarr").exists()
        assert "gate" not in run_whole(teacher, config, world.inputs, out)
        assert f"{why}: nothing was checked" in capsys.readouterr().err
    random = TeacherConfig(lidar=small, workers=1, weights="random", min_map=0.9)
    assert "gate" not in run_whole(teacher, random, world.inputs, folder("random"))


def test_the_gate_lets_a_good_one_through(world, folder, small, fitted, monkeypatch):
    """The detections are the truth itself; the measure is the real one."""
    from evaluation.ground_truth import ground_truth

    points = clouds(world)
    truth = {len(p): ground_truth(world.index, s) for s, p in enumerate(points)}
    head = type(fitted.head)
    asked = []
    monkeypatch.setattr("tasks.teacher.gate.load_points", lambda *a: asked.append(a[2]) or load_points(*a))
    monkeypatch.setattr(head, "predict", lambda self, _: [ground_truth(world.index, asked[-1])])
    summary = run_whole(teacher, TeacherConfig(lidar=small, workers=1), world.inputs, folder("teacher"))
    assert summary["gate"] == {"mAP": pytest.approx(1), "samples": 5}
    assert truth


def test_checkpoints_of_every_layout_give_the_same_maps(world, folder, small, small_fit):
    torch.manual_seed(5)
    detector = build_detector(small_fit.model_copy(update={"head": "transfusion", "queries": 20}))
    tensors = detector.state_dict()
    own = folder("files").path
    torch.save({MIT.to_file(n): t for n, t in tensors.items()}, own / "mit.pth")
    turned = {n: t.permute(4, 0, 1, 2, 3) if t.ndim == 5 else t for n, t in tensors.items()}
    torch.save(
        {"state_dict": {MMDET3D.to_file(n): t for n, t in turned.items()}, "meta": {"epoch": 20}}, own / "mm.pth"
    )
    torch.save({n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")}, own / "enc.pth")
    maps = []
    for name in ("mit.pth", "mm.pth", "enc.pth"):
        config = TeacherConfig(lidar=small, weights=str(own / name), gate_samples=2, min_map=0, workers=1)
        summary = run_whole(teacher, config, world.inputs, out := folder(name))
        assert ("gate" in summary) == (name != "enc.pth")
        maps.append(BevReader(out.path / "bev.zarr")[3])
    assert maps[0].any()
    assert np.array_equal(maps[0], maps[1])
    assert np.array_equal(maps[0], maps[2])
    config = TeacherConfig(lidar=small, weights=str(own / "enc.pth"), workers=1)
    for change, sentence in {
        "output": ("neck", "sparse encoder alone"),
        "detections": (True, "no detection head"),
    }.items():
        with pytest.raises(UserError, match=sentence[1]):
            run_whole(teacher, config.model_copy(update={change: sentence[0]}), world.inputs, folder(f"enc-{change}"))


def test_a_fitted_detector_knows_its_grid(world, folder, small, fitted):
    for name, value in {"sweeps": 0, "voxel_size": (0.2, 0.2, 0.2), "widths": (4, 4, 8, 16)}.items():
        config = TeacherConfig(lidar=small.model_copy(update={name: value}))
        with pytest.raises(UserError, match=rf"was fitted with lidar\.{name} = "):
            run_whole(teacher, config, world.inputs, folder(f"out-{name}"))


def test_a_killed_worker_is_said_so(world, folder, small, fitted):
    """As soon as it is there: it takes seconds to import torch."""
    import threading
    import time

    def kill_one() -> None:
        while not (workers := children_with("spawn_main")):
            time.sleep(0.05)
        workers[0].kill()

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    config = TeacherConfig(lidar=small, part_size=2, gate_samples=0, workers=2)
    with pytest.raises(UserError, match=r"processes was killed.*teacher\.workers"):
        run_whole(teacher, config, world.inputs, folder("teacher"))


def test_features_beyond_float16_name_the_sample(world, folder, small, fitted):
    broken = copy.deepcopy(fitted)
    broken.encoder.conv_out[1].weight.data += 1e6
    save_file(broken.state_dict(), (file := folder("broken").path / "a.safetensors"))
    config = TeacherConfig(lidar=small, weights=str(file), gate_samples=0, workers=1)
    with pytest.raises(UserError, match=r"sample0 reach .*float16"):
        run_whole(teacher, config, world.inputs, folder("teacher"))
