"""The camera backbone's config, shared by pretraining and finetuning: what one writes, the other must read."""

from typing import TYPE_CHECKING, Annotated, Any, overload

from pydantic import BeforeValidator, Field

from models.backbones.config import ConvNeXtConfig, ResNetConfig, SwinConfig

if TYPE_CHECKING:
    from models.backbones.backbone import Backbone
    from models.backbones.convnext import ConvNeXt
    from models.backbones.swin import Swin


def _named(given: Any) -> Any:
    """A section without a name is a Swin's, as all were once."""
    return {"name": "swin", **given} if isinstance(given, dict) else given


BackboneConfig = Annotated[
    Annotated[SwinConfig | ConvNeXtConfig | ResNetConfig, Field(discriminator="name")], BeforeValidator(_named)
]


@overload
def build_backbone(config: SwinConfig, drop_path: float = 0.0, norm_momentum: float = 0.1) -> "Swin": ...
@overload
def build_backbone(
    config: SwinConfig | ConvNeXtConfig, drop_path: float = 0.0, norm_momentum: float = 0.1
) -> "Swin | ConvNeXt": ...
@overload
def build_backbone(config: BackboneConfig, drop_path: float = 0.0, norm_momentum: float = 0.1) -> "Backbone": ...
def build_backbone(config: BackboneConfig, drop_path: float = 0.0, norm_momentum: float = 0.1) -> "Backbone":
    """The network of a config, freshly initialised from torch's global generator.

    norm_momentum: of batch norms, where it has any.
    """
    from models.backbones.convnext import ConvNeXt
    from models.backbones.resnet import ResNet
    from models.backbones.swin import Swin
    from models.norm import Norm

    if isinstance(config, ResNetConfig):
        return ResNet(config, Norm(momentum=norm_momentum), drop_path=drop_path)
    if isinstance(config, ConvNeXtConfig):
        return ConvNeXt(config, drop_path=drop_path)
    return Swin(config, drop_path=drop_path)
