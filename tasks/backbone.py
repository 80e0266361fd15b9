"""The camera backbone's config, shared by pretraining and finetuning: what one writes, the other must read."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from models.backbones.config import ConvNeXtConfig, ResNetConfig, SwinConfig

if TYPE_CHECKING:
    from models.backbones.backbone import Backbone


def _named(given: Any) -> Any:
    """A section without a name is a Swin's, as all were once."""
    return {"name": "swin", **given} if isinstance(given, dict) else given


BackboneConfig = Annotated[
    Annotated[SwinConfig | ConvNeXtConfig | ResNetConfig, Field(discriminator="name")], BeforeValidator(_named)
]


def build_backbone(
    config: BackboneConfig, drop_path: float = 0.0, checkpointing: bool = False, norm_momentum: float = 0.1
) -> "Backbone":
    """The network of a config, freshly initialised from torch's global generator.

    norm_momentum: of batch norms, where it has any.
    """
    from models.backbones.convnext import ConvNeXt
    from models.backbones.resnet import ResNet
    from models.backbones.swin import Swin
    from models.norm import Norm

    if isinstance(config, ResNetConfig):
        return ResNet(config, Norm(momentum=norm_momentum), drop_path=drop_path, checkpointing=checkpointing)
    network = Swin if isinstance(config, SwinConfig) else ConvNeXt
    return network(config, drop_path=drop_path, checkpointing=checkpointing)
