import subprocess
import sys

import pytest
import torch

from models import openmmlab


def test_import_is_quiet():
    code = "import models.openmmlab as door; assert not door.has_compiled_operators()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(openmmlab.has_compiled_operators(), reason="compiled operators are installed")
def test_missing_operator_says_its_name():
    import mmcv.ops

    with pytest.raises(NotImplementedError, match="nms_rotated"):
        mmcv.ops.nms_rotated(torch.rand(2, 5), torch.rand(2), 0.5)


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


def test_kaiming_init_leaves_unit_gain():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(64, 64, 3, padding=1)
    openmmlab.kaiming_init(conv)
    assert conv.bias.abs().max() == 0
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
