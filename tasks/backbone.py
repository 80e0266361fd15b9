"""The camera backbone's config, shared by pretraining and finetuning: what one writes, the other must read."""

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from common.settings import Settings

if TYPE_CHECKING:
    from models.swin import Swin

# Pixels a side of the coarsest token. Image sizes are multiples of it.
STRIDE = 32


class BackboneConfig(Settings):
    """A Swin with windows that never shift. The defaults are Swin-B's, as GeoMIM pretrains it."""

    embed_dim: int = Field(128, ge=8, description="Channels of the first stage; each later one doubles them.")
    depths: tuple[int, int, int, int] = Field((2, 2, 18, 2), description="Blocks of each stage.")
    num_heads: tuple[int, int, int, int] = Field((4, 8, 16, 32), description="Attention heads of each stage.")
    window_sizes: tuple[int, int, int, int] = Field((16, 16, 16, 8), description="Tokens a side of a window, by stage.")
    pretrain_grid: int = Field(56, ge=1, description="Tokens a side of the stored absolute position embedding.")

    @model_validator(mode="after")
    def _heads_divide(self) -> "BackboneConfig":
        for stage, heads in enumerate(self.num_heads):
            channels = self.embed_dim * 2**stage
            if heads < 1 or channels % heads:
                raise ValueError(f"num_heads[{stage}] is {heads}, which does not divide the {channels} channels")
        for name in ("depths", "window_sizes"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name} has a number below 1")
        return self

    @property
    def channels(self) -> tuple[int, int, int, int]:
        return tuple(self.embed_dim * 2**stage for stage in range(4))


def build_backbone(config: BackboneConfig, drop_path: float = 0.0) -> "Swin":
    """The network of a config, freshly initialised from torch's global generator."""
    from models.swin import Swin

    return Swin(
        config.embed_dim,
        config.depths,
        config.num_heads,
        config.window_sizes,
        pretrain_grid=config.pretrain_grid,
        drop_path=drop_path,
    )
