"""The one door to OpenMMLab: what this project uses of mmdet3d, importable without compiled operators.

Every module of mmdet3d ends up importing `mmcv._ext`, the compiled operators, which mmcv-lite does not have. Where they
are absent, a stand-in takes the name: it imports, and any operator that is really called says that it is not there.
Where the compiled mmcv is installed, it is used untouched.

The classes are re-exported as they are, so read mmdet3d's documentation for them. What runs without compiled operators:
pillar detectors, CenterHead with circle NMS, LiDARInstance3DBoxes. What does not: rotated NMS and IoU, voxelisation,
deformable and sparse convolution.
"""

import importlib.util
import logging
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn


class DetectorUnavailable(ValueError):
    """A detector that cannot be read, built or run here; the text says why in one sentence."""


class MissingOperators(types.ModuleType):
    """Stands in for `mmcv._ext`: every attribute is a function that raises NotImplementedError when called."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> NoReturn:
            raise NotImplementedError(f"mmcv's compiled operator '{name}' is not installed (mmcv-lite has none)")

        return missing


def has_compiled_operators() -> bool:
    """Whether the installed mmcv brings its compiled operators."""
    return not isinstance(sys.modules.get("mmcv._ext"), MissingOperators)


if "mmcv._ext" not in sys.modules and importlib.util.find_spec("mmcv._ext") is None:
    sys.modules["mmcv._ext"] = MissingOperators("mmcv._ext")


@contextmanager
def quiet() -> Iterator[None]:
    """Around a call of other people's code: its deprecation notices and logs are nothing a user here can act on."""
    disabled_below = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled_below)


with quiet():
    from mmdet3d.models.detectors import Base3DDetector
    from mmdet3d.models.voxel_encoders.pillar_encoder import DynamicScatter
    from mmdet3d.registry import MODELS
    from mmdet3d.structures import Box3DMode, Det3DDataSample, LiDARInstance3DBoxes
    from mmengine.config import Config, ConfigDict
    from mmengine.registry import DefaultScope

__all__ = [
    "Base3DDetector",
    "Box3DMode",
    "Det3DDataSample",
    "DetectorUnavailable",
    "DynamicScatter",
    "LiDARInstance3DBoxes",
    "build_detector",
    "has_compiled_operators",
    "quiet",
    "read_config",
]


def read_config(path: Path) -> dict[str, Any]:
    """An mmdet3d config with all it inherits, as plain values.

    A config is a Python program, which runs here: read only files you trust. mmengine alone knows how `_base_` and
    variables resolve, which is why this room reads a file at all. Raises DetectorUnavailable.
    """
    try:
        with quiet():
            return Config.fromfile(path).to_dict()
    except Exception as error:
        raise DetectorUnavailable(f"{path}: is no mmdet3d config that can be read ({_one_line(error)})") from error


def build_detector(model: Mapping[str, Any]) -> Base3DDetector:
    """The detector of a config's `model`, in eval mode, its weights drawn from torch's global generator.

    `init_cfg` and `pretrained` are never acted on: mmengine downloads only where init_weights() is called. Raises
    DetectorUnavailable.
    """
    try:
        with quiet(), DefaultScope.overwrite_default_scope("mmdet3d"):
            return MODELS.build(ConfigDict(model)).eval()
    except Exception as error:
        raise DetectorUnavailable(f"mmdet3d cannot build `model` ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
