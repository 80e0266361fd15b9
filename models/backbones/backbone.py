"""What every camera backbone is to those that build on it."""

from typing import Protocol

from torch import Tensor


class Backbone(Protocol):
    """Images in, a map of every stage out, from fine to coarse.

    strides: pixels a side of a cell of each stage's map. channels: of each map. depths: blocks of each stage.
    out_indices: the stages whose maps are meant for others; in a Swin and a ConvNeXt these alone are normalised.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    depths: tuple[int, ...]
    out_indices: tuple[int, ...]

    def __call__(self, images: Tensor, *, stop_at: int | None = None) -> list[Tensor]:
        """Maps (M, C_i, H / s_i, W / s_i) of images (M, 3, H, W); with `stop_at`, no stage behind that one is run."""
        ...

    def layer_of(self, name: str) -> int:
        """A parameter's layer: 0 for the stem, 1 to sum(depths) for the blocks, one more for what comes after them.

        What leads from one stage to the next belongs to the first block of the latter.
        """
        ...
