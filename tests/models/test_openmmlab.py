import importlib.util
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from models import openmmlab


def test_import_is_quiet_and_leaves_logging_and_warnings_as_they_are():
    code = """
import logging, warnings, torch  # which has filters of its own
before = list(warnings.filters), logging.root.manager.disable, logging.root.level, list(logging.root.handlers)
import models.openmmlab as door
assert not door.has_compiled_operators()
assert before == (warnings.filters, logging.root.manager.disable, logging.root.level, logging.root.handlers)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(openmmlab.has_compiled_operators(), reason="compiled operators are installed")
def test_missing_operator_says_its_name():
    import mmcv.ops

    with pytest.raises(NotImplementedError, match="nms_rotated"):
        mmcv.ops.nms_rotated(torch.rand(2, 5), torch.rand(2), 0.5)
    with pytest.raises(NotImplementedError, match="deform_conv_forward"):  # called by keyword
        mmcv.ops.deform_conv2d(torch.rand(1, 1, 4, 4), torch.rand(1, 18, 4, 4), torch.rand(1, 1, 3, 3), 1, 1)


def test_steps_aside_for_compiled_operators():
    code = """
import sys, types
class Compiled(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *a: name
real = sys.modules["mmcv._ext"] = Compiled("mmcv._ext")
import models.openmmlab as door
assert sys.modules["mmcv._ext"] is real and door.has_compiled_operators()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


CONFIGS = Path(importlib.util.find_spec("mmdet3d").origin).parent / ".mim" / "configs"
POINTPILLARS = CONFIGS / "pointpillars" / "pointpillars_hv_secfpn_sbn-all_8xb4-2x_nus-3d.py"


def test_config_is_read_with_what_it_inherits(tmp_path):
    (tmp_path / "own.py").write_text(
        f"_base_ = {str(POINTPILLARS)!r}\nmodel = dict(pts_neck=dict(out_channels=[8] * 3))"
    )
    config = openmmlab.read_config(tmp_path / "own.py")
    assert config["model"]["pts_neck"]["out_channels"] == [8, 8, 8]
    assert config["model"]["pts_backbone"]["type"] == "SECOND"
    assert config["class_names"][2] == "trailer"
    assert json.loads(json.dumps(config)).keys() == config.keys()


@pytest.mark.parametrize(
    ("text", "message"), [(None, "own.py"), ("model = (", "SyntaxError"), ('_base_ = "absent.py"', "absent.py")]
)
def test_unreadable_config_is_one_sentence(tmp_path, text, message):
    if text is not None:
        (tmp_path / "own.py").write_text(text)
    with pytest.raises(openmmlab.DetectorUnavailable, match=message) as error:
        openmmlab.read_config(tmp_path / "own.py")
    assert "\n" not in str(error.value)


def test_detector_is_built_in_silence_and_its_config_left_as_it_is(capfd):
    """An anchor head warns of deprecations; naiveSyncBN and mmdet's parts are found in their own registries."""
    model = openmmlab.read_config(POINTPILLARS)["model"]
    before = json.dumps(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector = openmmlab.build_detector(model)
    assert capfd.readouterr() == ("", "")
    assert json.dumps(model) == before
    assert not detector.training
    assert type(detector).__name__ == "MVXFasterRCNN"


def test_unknown_detector_is_one_sentence():
    with pytest.raises(openmmlab.DetectorUnavailable, match=r"cannot build .*NoSuchNet"):
        openmmlab.build_detector({"type": "NoSuchNet"})
