"""What rendering is held to: L1 of the colours and of the depths, of rays that pass through the box."""

from torch import Tensor

from models.mim4d.renderer import Rendered
from models.shapes import check_shape


def rgb_loss(rendered: Rendered, rgb: Tensor) -> Tensor:
    """Mean absolute error of colours. rgb: (B, R, 3) in [0, 1]."""
    check_shape("rgb", rgb, *rendered.rgb.shape)
    errors = (rendered.rgb - rgb).abs().mean(-1)
    return (errors * rendered.hit).sum() / rendered.hit.sum().clamp(min=1)


def depth_loss(rendered: Rendered, depth: Tensor, scale: float) -> Tensor:
    """Mean absolute error of depths, in units of the scaled scene.

    depth: (B, R) m along the ray, 0 or less where there is none. scale: `RenderSpec.scale`, what a metre is worth (1/54
    in a box of +-54 m; MIM4D multiplies this loss by 10, and so a metre counts 0.185).
    """
    check_shape("depth", depth, *rendered.depth.shape)
    measured = rendered.hit & (depth > 0)
    return scale * ((rendered.depth - depth).abs() * measured).sum() / measured.sum().clamp(min=1)
