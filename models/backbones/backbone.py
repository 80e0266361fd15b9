"""What every camera backbone is to those that build on it."""

from collections.abc import Callable

from torch import Tensor, nn

from models.checkpointing import Checkpointing


class Backbone(nn.Module):
    """Images in, a map of every stage out, from fine to coarse.

    Called with images (M, 3, H, W) it gives maps (M, C_i, H / s_i, W / s_i); with `stop_at`, the number of a stage, it
    runs none behind that one.

    strides: pixels a side of a cell of each stage's map. channels: of each map. depths: blocks of each stage.
    out_indices: the stages whose maps are meant for others; in a Swin and a ConvNeXt these alone are normalised.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    depths: tuple[int, ...]
    out_indices: tuple[int, ...]
    checkpointing: Checkpointing = "mlp"

    __call__: Callable[..., list[Tensor]]

    def layer_of(self, name: str) -> int:
        """A parameter's layer: 0 for the stem, 1 to sum(depths) for the blocks, one more for what comes after them.

        What leads from one stage to the next belongs to the first block of the latter.
        """
        raise NotImplementedError
