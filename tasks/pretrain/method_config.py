"""What all methods of pretraining have in common for those who plan."""

import importlib
from typing import Any, ClassVar

from batches.image_config import ImageConfig
from common.settings import Settings
from models.backbones.build import BackboneConfig
from tasks.engine.stage import StageName


class MethodConfig(Settings):
    """The base of a method's config: `Config` of a module in `tasks/pretrain/methods`, which its `name` is that of.

    Planning reads it, so that its module needs no torch.
    """

    name: str
    needs: ClassVar[tuple[StageName, ...]] = ("ingest",)
    entry: ClassVar[str]  # "module:class", imported when it runs, so that planning needs no torch

    def check(self, image: ImageConfig, backbone: BackboneConfig, init: str | None) -> None:
        """Raise ValueError where the method does not go with the images or what it begins from."""

    def check_backbone(self, backbone: BackboneConfig) -> BackboneConfig:
        """The same. Raises ValueError where the method cannot pretrain such a backbone."""
        return backbone

    def check_caches(self, bev_cells: tuple[int, int] | None, depth_sweeps: int, camera_frames: int) -> None:
        """Raise ValueError where it does not go with the caches.

        bev_cells: cells (X, Y) of the teacher's map, None where that is known when it is built alone. depth_sweeps:
        previous LiDAR sweeps in the depth cache. camera_frames: previous frames of each camera in the index.
        """

    def method(self) -> type[Any]:
        """The class that this config is of, a `tasks.pretrain.method.Method`."""
        module, name = self.entry.split(":")
        return getattr(importlib.import_module(module), name)
