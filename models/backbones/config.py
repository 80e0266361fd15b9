"""The frozen configs that backbones are built from, and that `backbone:` of a YAML file is read into."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from common.settings import Settings

# Fields of a Swin that came after the first artifacts: at their defaults they are in no key.
_LATER = ("name", "patch_size", "mlp_ratio")


class SwinConfig(Settings):
    """A Swin with windows that never shift. The defaults are Swin-B's, as GeoMIM pretrains it."""

    name: Literal["swin"] = Field("swin", description="Which network: swin, convnext or resnet.")
    embed_dim: int = Field(128, ge=1, description="Channels of the first stage; each later one doubles them.")
    depths: tuple[int, int, int, int] = Field(
        (2, 2, 18, 2), description="Blocks of each stage; none in the first: patches are merged as they are."
    )
    num_heads: tuple[int, int, int, int] = Field((4, 8, 16, 32), description="Attention heads of each stage.")
    window_sizes: tuple[int, int, int, int] = Field((16, 16, 16, 8), description="Tokens a side of a window, by stage.")
    pretrain_grid: int = Field(56, ge=1, description="Tokens a side of the stored absolute position embedding.")
    patch_size: int = Field(4, ge=1, description="Pixels a side of a token of the first stage.")
    mlp_ratio: float = Field(4.0, gt=0, description="Width of a block's MLP, in channels of its stage.")

    @model_validator(mode="after")
    def _heads_divide(self) -> "SwinConfig":
        for stage, (heads, channels) in enumerate(zip(self.num_heads, self.channels)):
            if heads < 1 or channels % heads:
                raise ValueError(f"num_heads[{stage}] is {heads}, which does not divide the {channels} channels")
        for name, least in (("depths", (0, 1, 1, 1)), ("window_sizes", (1, 1, 1, 1))):
            for stage, (number, fewest) in enumerate(zip(getattr(self, name), least)):
                if number < fewest:
                    raise ValueError(f"{name}[{stage}] is {number}: it must be {fewest} at least")
        return self

    def key_fields(self) -> dict[str, Any]:
        defaults = {name: type(self).model_fields[name].default for name in _LATER}
        return {name: value for name, value in super().key_fields().items() if (name, value) not in defaults.items()}

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each stage's map."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.depths)))

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels a side of a cell of each stage's map."""
        return tuple(self.patch_size * 2**stage for stage in range(len(self.depths)))


class ConvNeXtConfig(Settings):
    """A ConvNeXt as published."""

    name: Literal["convnext"] = "convnext"
    size: Literal["tiny", "small", "base"] = Field("tiny", description="Blocks and channels of the stages.")

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return (3, 3, 9, 3) if self.size == "tiny" else (3, 3, 27, 3)

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each stage's map."""
        first = 128 if self.size == "base" else 96
        return tuple(first * 2**stage for stage in range(len(self.depths)))

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels a side of a cell of each stage's map."""
        return 4, 8, 16, 32


class ResNetConfig(Settings):
    """A ResNet as published, of basic blocks (18) or bottlenecks (50)."""

    name: Literal["resnet"] = "resnet"
    depth: Literal[18, 50] = Field(50, description="Layers, as they are counted in its name.")

    @property
    def bottleneck(self) -> bool:
        """Whether blocks have three convolutions, and four times their width in channels."""
        return self.depth == 50

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return (3, 4, 6, 3) if self.bottleneck else (2, 2, 2, 2)

    @property
    def widths(self) -> tuple[int, ...]:
        """Of each stage's 3x3 convolutions."""
        return 64, 128, 256, 512

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each stage's map."""
        return tuple(width * (4 if self.bottleneck else 1) for width in self.widths)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels a side of a cell of each stage's map."""
        return 4, 8, 16, 32


def published(name: str, depths: Sequence[int], channels: Sequence[int]) -> ConvNeXtConfig | ResNetConfig | None:
    """The ConvNeXt or ResNet of so many blocks and channels by stage; None where there is no such."""
    configs: list[ConvNeXtConfig | ResNetConfig] = [ConvNeXtConfig(size=size) for size in ("tiny", "small", "base")]
    configs += [ResNetConfig(depth=depth) for depth in (18, 50)]
    sizes = name, tuple(depths), tuple(channels)
    return next((config for config in configs if (config.name, config.depths, config.channels) == sizes), None)
