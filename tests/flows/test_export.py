"""`geomim export` through the command line's entry, with its exit codes."""

import pytest
import torch
from safetensors.torch import save_file

from small_swin import small_swin


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "artifact").mkdir()
    swin = small_swin(windows=(4, 4, 4, 2), grid=8)
    save_file(swin.state_dict(), tmp_path / "artifact/backbone.safetensors")
    return tmp_path


def test_a_backbone_is_written(geomim, folder):
    code, out, _ = geomim("export", folder / "artifact", folder / "b.pth", "--layout", "bevdet")
    assert code == 0
    assert "b.pth: 74 tensors in bevdet layout" in out
    assert "window_sizes (4, 4, 4, 2)" in out
    assert "backbone.norm3.weight" in torch.load(folder / "b.pth", weights_only=True)["state_dict"]


def test_a_mistake_is_a_sentence_and_exit_code_2(geomim, folder):
    code, _, error = geomim("export", folder / "artifact", folder / "b.pth", "--layout", "original")
    assert (code, error.count("\n")) == (2, 1)
    assert "geomim: " in error
    assert "holds no model.safetensors" in error
    assert geomim("export", folder / "artifact", folder / "b.pth", "--layout", "keras")[0] == 2
    assert not (folder / "b.pth").exists()


def test_the_help_names_the_layouts(geomim):
    code, out, _ = geomim("export", "--help")
    assert code == 0
    for word in ("Example:", "bevdet", "timm", "original", "SOURCE"):
        assert word in out
