"""`geomim teacher --checkpoint FILE`: from the command line to the cache, and the sentences on the way."""

import pytest
import torch
from safetensors.torch import load_file

from models.lidar.checkpoint import MIT

pytestmark = pytest.mark.e2e


def test_a_checkpoint_is_all_that_is_needed(cli, tmp_path):
    fitted = cli.path("fit") / "detector.safetensors"
    output = cli("teacher", "--checkpoint", fitted, "--set", "teacher.workers=2", "--set", "teacher.detections=true")
    assert "annotated samples" in output.stderr
    assert "samples/s; seconds a sample: read" in output.stderr
    chosen = ["--set", f"teacher.weights={fitted}", "--set", "teacher.detections=true"]
    state = cli.status(*chosen)
    assert "fit" not in state
    assert state["teacher"]["state"] == "cached"
    folder = cli.path("teacher", *chosen)
    assert (folder / "boxes.zarr").is_dir()
    assert (folder / "metrics.json").is_file()
    manifest = (folder / "manifest.json").read_text()
    assert "nuscenes_train_gb" in manifest
    cli.here("pretrain", *chosen[1::2])  # and goes on from there


def test_what_is_wrong_with_a_checkpoint_is_said_in_a_sentence(cli, tmp_path):
    fitted = load_file(cli.path("fit") / "detector.safetensors")
    torch.save({MIT.to_file(name): t for name, t in fitted.items()}, tmp_path / "centerpoint.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "centerpoint.pth").read_bytes()[:3000])
    for name, sentence in {
        "none.pth": "there is no file",
        "cut.pth": "is no whole checkpoint",
    }.items():
        failed = cli("teacher", "--checkpoint", tmp_path / name, code=2)
        assert name in failed.stderr
        assert sentence in failed.stderr
        assert "Traceback" not in failed.stderr
    wider = ["--set", "lidar.widths=[4, 8, 8, 16]"]
    for file, sentence in {
        cli.path("fit") / "detector.safetensors": "was fitted with lidar.widths",
        tmp_path / "centerpoint.pth": "is unknown (heads (",  # a head that no published file has there
    }.items():
        failed = cli("teacher", "--checkpoint", file, *wider, code=2)
        assert sentence in failed.stderr
        assert "Traceback" not in failed.stderr
    failed = cli("teacher", "--set", "teacher.min_map=0.9", "--set", "teacher.seed=1", code=2)
    assert "below teacher.min_map = 0.9" in failed.stderr
    assert cli.status("--set", "teacher.seed=1")["teacher"]["state"] != "cached"
