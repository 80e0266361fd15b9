"""Complementary halves of an image: which cells each of two reconstructions is shown.

GeoMIM encodes both halves in one pass (attention never crosses between them) and reconstructs the BEV twice, each time
from one half, with a mask token in place of the other. No pixel is mixed or removed.

MIM4D hides a share of every image instead, whatever share (`draw_visible`).
"""

from fractions import Fraction

import torch
from torch import Tensor

HIDDEN = -1


def permutations(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Random permutations (count, length) of the cells."""
    return torch.rand(count, length, generator=generator).argsort(1)


def halves(permutation: Tensor, grid: tuple[int, int], ratio: float = 0.5) -> Tensor:
    """Group of every cell, (K, h, w): 0 is shown to the first reconstruction, 1 to the second, `HIDDEN` to neither.

    permutation: (K, h * w). ratio: share of cells that each reconstruction does not see, at least 0.5; of L cells each
    sees floor(L * (1 - ratio)). At 0.5 and an even L the halves are complementary.
    """
    if not 0.5 <= ratio < 1:
        raise ValueError(f"The mask ratio is {ratio}: two disjoint visible sets need one in [0.5, 1).")
    count, length = permutation.shape
    visible = int(length * (1 - Fraction(str(ratio))))  # of 20 cells at 0.9 two; floats would give 1.9999999999999996
    groups = torch.full((count, length), HIDDEN, dtype=torch.int64)
    groups.scatter_(1, permutation[:, :visible], 0)
    groups.scatter_(1, permutation[:, visible : 2 * visible], 1)
    return groups.view(count, *grid)


def draw_halves(
    images: int, grid: tuple[int, int], generator: torch.Generator, ratio: float = 0.5, shared: bool = True
) -> Tensor:
    """Random halves (1, h, w) shared by all images, or (images, h, w), one draw each."""
    return halves(permutations(1 if shared else images, grid[0] * grid[1], generator), grid, ratio)


def draw_visible(images: int, grid: tuple[int, int], generator: torch.Generator, ratio: float) -> Tensor:
    """Which cells of each image are seen, bool (images, h, w); of L cells round(L * (1 - ratio)), drawn for each."""
    length = grid[0] * grid[1]
    if not 0 <= ratio < 1:
        raise ValueError(f"The mask ratio is {ratio}: it must be in [0, 1).")
    visible = torch.zeros(images, length, dtype=torch.bool)
    visible.scatter_(1, permutations(images, length, generator)[:, : max(1, round(length * (1 - ratio)))], True)
    return visible.view(images, *grid)


def upsample_groups(groups: Tensor, height: int, width: int) -> Tensor:
    """Cell groups (1 or M, h, w) at a token grid that they divide: (1 or M, height, width)."""
    scale_h, scale_w = height // groups.shape[1], width // groups.shape[2]
    return groups.repeat_interleave(scale_h, 1).repeat_interleave(scale_w, 2)
