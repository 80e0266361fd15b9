"""The one door to OpenMMLab: what this project uses of mmdet3d, importable without compiled operators.

Every module of mmdet3d ends up importing `mmcv._ext`, the compiled operators, which mmcv-lite does not have. Where they
are absent, a stand-in takes the name: it imports, and any operator that is really called says that it is not there.
Where the compiled mmcv is installed, it is used untouched.

The classes are re-exported as they are, so read mmdet3d's documentation for them. What runs without compiled operators:
SECOND, SECONDFPN, CenterHead with circle NMS, LiDARInstance3DBoxes. What does not: rotated NMS and IoU, voxelisation,
deformable convolution.
"""

import importlib.util
import logging
import sys
import types
import warnings

from torch import nn


class MissingOperators(types.ModuleType):
    """Stands in for `mmcv._ext`: every attribute is a function that raises NotImplementedError when called."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_):
            raise NotImplementedError(f"mmcv's compiled operator '{name}' is not installed (mmcv-lite has none)")

        return missing


def has_compiled_operators() -> bool:
    """Whether the installed mmcv brings its compiled operators."""
    return not isinstance(sys.modules.get("mmcv._ext"), MissingOperators)


if "mmcv._ext" not in sys.modules and importlib.util.find_spec("mmcv._ext") is None:
    sys.modules["mmcv._ext"] = MissingOperators("mmcv._ext")

_loggers_disabled_below = logging.root.manager.disable
logging.disable(logging.WARNING)
try:
    with warnings.catch_warnings():
        # Deprecation notices of other people's imports are nothing a user of this project can act on.
        warnings.simplefilter("ignore")
        from mmdet3d.models.backbones.second import SECOND
        from mmdet3d.models.dense_heads.centerpoint_head import CenterHead
        from mmdet3d.models.layers import circle_nms
        from mmdet3d.models.necks.second_fpn import SECONDFPN
        from mmdet3d.structures import LiDARInstance3DBoxes
        from mmengine.structures import InstanceData
finally:
    logging.disable(_loggers_disabled_below)

__all__ = [
    "SECOND",
    "SECONDFPN",
    "CenterHead",
    "InstanceData",
    "LiDARInstance3DBoxes",
    "circle_nms",
    "has_compiled_operators",
    "kaiming_init",
]


def kaiming_init(module: nn.Module) -> None:
    """Initialise convolutions as mmdet3d's `init_cfg` asks for: mmengine's init_weights() without its pages of log."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
