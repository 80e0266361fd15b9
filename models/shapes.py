"""The shape of what comes in at a public function's door: wrong ones often broadcast, and give numbers all the same."""

from torch import Tensor


def check_shape(name: str, tensor: Tensor, *shape: int | None) -> None:
    """Raise ValueError unless a tensor has this shape; None stands for any size."""
    if tensor.ndim != len(shape) or any(w is not None and w != side for w, side in zip(shape, tensor.shape)):
        wanted = ", ".join("any" if side is None else str(side) for side in shape)
        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, not ({wanted})")
