"""No two trainings on one GPU at a time, whatever their roots are."""

import threading

import torch

from tasks.engine.device_lock import alone, gpus


def test_one_after_the_other_and_beside_those_on_other_devices(tmp_path):
    """Each takes its devices' locks in one order, so that none waits for another in a circle."""
    order, inside = [], threading.Semaphore(1)
    started = threading.Event()

    def work(name, devices):
        with alone(devices, name, "pretrain", tmp_path):
            if "gpu-0" in devices:
                assert inside.acquire(blocking=False), "two at once on gpu-0"
                started.set()
                threading.Event().wait(0.3)
                inside.release()
            order.append(name)

    first = threading.Thread(target=work, args=("first", ["gpu-1", "gpu-0"]))
    first.start()
    started.wait()
    others = [threading.Thread(target=work, args=(n, d)) for n, d in (("second", ["gpu-0", "gpu-1"]), ("third", []))]
    for thread in others:
        thread.start()
    for thread in (first, *others):
        thread.join()
    assert order == ["third", "first", "second"]
    assert not list(tmp_path.iterdir())


def test_who_waits_is_told_for_whom(tmp_path, capsys):
    held, done = threading.Event(), threading.Event()

    def holds():
        with alone(["gpu-0"], "geomim pretrain --config a.yaml", "pretrain", tmp_path):
            held.set()
            done.wait(2.0)

    holder = threading.Thread(target=holds)
    holder.start()
    held.wait()
    with alone(["gpu-0"], "geomim fit", "fit", tmp_path):
        pass
    holder.join()
    told = capsys.readouterr().err
    assert told.startswith("fit: waiting for ")
    assert "geomim pretrain --config a.yaml" in told


def test_names_are_the_machines_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus("cpu") == []
    assert gpus("auto") == gpus("cuda") == ["gpu-0", "gpu-1"]
    assert gpus("cuda:1") == ["gpu-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-abc")
    assert gpus("auto") == ["gpu-5", "gpu-GPU-abc"]
    assert gpus("cuda:1") == ["gpu-GPU-abc"]
