"""What every head is to the detector that carries it."""

from typing import Any

from torch import Tensor, nn

from models.boxes import Boxes


class Head(nn.Module):
    """Called with a map (B, C, Y, X) of the bird's-eye view it says something of it, raw, of a kind of its own."""

    def predict(self, predictions: Any) -> list[Boxes] | Tensor:
        """What becomes of what it said of a map: each sample's boxes, or a map (B, ...)."""
        raise NotImplementedError
