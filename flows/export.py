"""`geomim export`: pretrained weights for other people's code."""

from pathlib import Path
from typing import Literal

# Stands here, not with the code that writes them, so that the command line can list them without torch.
Layout = Literal["geomim", "mmdet", "bevdet", "swin", "timm", "torchvision", "convnext", "uvtr", "original"]


def export_weights(source: Path, out: Path, layout: Layout) -> None:
    """Write `source`'s weights to `out` in a layout and say what is in it."""
    from tasks.pretrain.weights import export

    print(export(source, out, layout))
