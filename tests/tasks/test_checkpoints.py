"""Reading checkpoint files: what is taken, and the sentence for each that is not."""

import argparse
import json
import os

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from common.errors import UserError
from tasks.checkpoints import read_metadata, read_tensors


def test_mmengine_checkpoints_are_read_without_running_their_objects(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    history.update(3.0)
    info = {"best": np.float64(0.5), "seen": np.arange(3), "flags": np.array([True]), "epoch": np.int64(20)}
    log = {"log_scalars": {"train/loss": history}, "runtime_info": info}
    content = {"meta": {"epoch": 20, "cfg": "..."}, "message_hub": log, "state_dict": {"a.weight": torch.ones(2)}}
    torch.save(content, tmp_path / "mm.pth")
    tensors = read_tensors(tmp_path / "mm.pth")
    assert list(tensors) == ["a.weight"]
    assert torch.equal(tensors["a.weight"], torch.ones(2))
    assert read_metadata(tmp_path / "mm.pth") == {}


def test_the_other_places_where_a_file_keeps_its_weights(tmp_path):
    """The original Swin's and MixMAE's: `model`, beside the arguments of the run."""
    run = argparse.Namespace(lr=1e-3, output_dir="here", betas=(0.9, 0.95), resume=None)
    torch.save({"model": {"a": torch.ones(2)}, "args": run, "epoch": 599}, tmp_path / "mixmae.pth")
    assert list(read_tensors(tmp_path / "mixmae.pth")) == ["a"]
    both = {"state_dict": {"a": torch.zeros(2)}, "state_dict_ema": {"a": torch.ones(2)}}
    torch.save(both, tmp_path / "ema.pth")
    assert read_tensors(tmp_path / "ema.pth")["a"].tolist() == [1, 1]
    torch.save({"a": torch.ones(2), "b": torch.ones(1)}, tmp_path / "bare.pt")
    assert list(read_tensors(tmp_path / "bare.pt")) == ["a", "b"]


class Runs:
    """Calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("thing", "named"),
    [
        (Runs(print, "this must not run"), r"builtins\.print"),
        (Runs(os.system, "echo this must not run"), r"(posix|nt)\.system"),
        (Runs(getattr, HistoryBuffer, "mean"), None),  # allowed as a name, but looks nothing up
        (Runs(eval, "print('this must not run')"), r"builtins\.eval"),
    ],
)
def test_code_is_refused(tmp_path, capfd, thing, named):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": thing}, tmp_path / "harmful.pth")
    if named is None:
        assert list(read_tensors(tmp_path / "harmful.pth")) == ["a"]
    else:
        with pytest.raises(UserError, match=rf"harmful\.pth: refused.*code of its own.*{named}"):
            read_tensors(tmp_path / "harmful.pth")
    assert "must not run" not in capfd.readouterr().out


def test_a_damaged_header_is_a_sentence(tmp_path):
    """Metadata must be text; what is in the text is for those to judge who wrote it."""
    header = json.dumps({"__metadata__": {"geomim.fit": 3}}).encode()
    (tmp_path / "number.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (tmp_path / "length.safetensors").write_bytes(b"\xff" * 8 + header)
    for name in ("number", "length"):
        for read in (read_tensors, read_metadata):
            sentence = rf"{name}\.safetensors: .*(whole checkpoint|header is damaged)"
            with pytest.raises(UserError, match=sentence) as error:
                read(tmp_path / f"{name}.safetensors")
            assert "\n" not in str(error.value)


def test_bad_files_each_have_their_sentence(tmp_path):
    torch.save({"a": torch.zeros(10_000)}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for cut in (0, 10, 5000, len(whole) - 30):
        (tmp_path / f"cut{cut}.pth").write_bytes(whole[:cut])
        with pytest.raises(UserError, match=rf"cut{cut}\.pth: is no"):
            read_tensors(tmp_path / f"cut{cut}.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({1: torch.zeros(2)}, tmp_path / "numbers.pth")
    save_file({}, tmp_path / "nothing.safetensors")
    for name, sentence in {
        "none.pth": "no such checkpoint",
        "text.pth": "is no",
        "text.safetensors": "no whole checkpoint",
        "list.pth": "no tensors",
        "numbers.pth": "no tensors",
        "nothing.safetensors": "no tensors",
    }.items():
        with pytest.raises(UserError, match=rf"{name}: .*{sentence}"):
            read_tensors(tmp_path / name)
    with pytest.raises(UserError, match="no such checkpoint"):
        read_tensors(tmp_path)
