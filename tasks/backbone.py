"""The camera backbone's config, shared by pretraining and finetuning: what one writes, the other must read."""

from typing import TYPE_CHECKING

from models.backbones.config import SwinConfig

if TYPE_CHECKING:
    from models.backbones.swin import Swin

BackboneConfig = SwinConfig


def build_backbone(config: BackboneConfig, drop_path: float = 0.0, checkpointing: bool = False) -> "Swin":
    """The network of a config, freshly initialised from torch's global generator."""
    from models.backbones.swin import Swin

    return Swin(config, drop_path=drop_path, checkpointing=checkpointing)
