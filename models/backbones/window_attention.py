"""Self-attention inside the square windows of a map, confined to groups of tokens: what a Swin is made of.

Windows never shift and a token sees only its own group, so the sets of tokens that see each other, the cliques, are the
same in all blocks of a stage. On a CPU each clique has a dense attention of its own: with two groups half the
arithmetic of masked windows, on scores that stay in the cache and are not kept for the backward pass. (Cliques of equal
size in one product are no faster: measured.) On a GPU, and where a compiler asks for shapes that no data decides,
windows are batched and groups are a mask.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The group of window padding: no token's.
PADDING = -2


@dataclass(frozen=True)
class Cliques:
    """The tokens of a map, sorted so that each clique is a run.

    `order` (T,) says which token comes where; T counts the tokens of one map, or, where images have groups of their
    own (`shared` is false), of all of them. `positions` (T,) is a sorted token's place in its window, row by row.
    """

    order: Tensor
    inverse: Tensor
    positions: Tensor
    sizes: list[int]
    shared: bool

    @classmethod
    def of(cls, groups: Tensor, shape: tuple[int, int]) -> "Cliques":
        """groups: integer (K, H, W). shape: tokens down and across a window; the last ones may be cut."""
        maps, height, width = groups.shape
        row = torch.arange(height, device=groups.device)[:, None]
        column = torch.arange(width, device=groups.device)
        window = row // shape[0] * width + column // shape[1]
        key = window + height * width * torch.arange(maps, device=groups.device)[:, None, None]
        distinct, group = groups.unique(return_inverse=True)
        key = (key * len(distinct) + group).flatten()
        order = key.argsort(stable=True)
        sizes = key[order].unique_consecutive(return_counts=True)[1].tolist()
        positions = (row % shape[0] * shape[1] + column % shape[1]).repeat(maps, 1, 1).flatten()[order]
        return cls(order, order.argsort(), positions, sizes, maps == 1)


@dataclass(frozen=True)
class Windows:
    """How maps are cut into windows of `shape` tokens (down, across), and who sees whom in them.

    `padding` (down, across) is added to the map first, bottom and right. Either `cliques` says who sees whom, or
    `blocked`: pairs (1 or M, windows, n, n) of a window's n tokens that must not see each other; None if all may.
    """

    shape: tuple[int, int]
    padding: tuple[int, int]
    cliques: Cliques | None
    blocked: Tensor | None
    offsets: Tensor  # (n * n,), rows of the bias table


class WindowAttention(nn.Module):
    """Multi-head self-attention inside square windows with a learned bias for every relative offset.

    padding_visible: see `models.backbones.swin.Swin`.
    """

    def __init__(self, dim: int, num_heads: int, window: int, padding_visible: bool):
        super().__init__()
        self.num_heads, self.window, self.padding_visible = num_heads, window, padding_visible
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def windows(self, x: Tensor, groups: Tensor | None = None, by_clique: bool | None = None) -> Windows:
        """The windows of a map x (M, H, W, C), good for every attention of this window size on maps of this size.

        groups: integer (1 or M, H, W), or None for one group. by_clique: on a CPU, if not told.
        """
        height, width = x.shape[1:3]
        one_group = groups is None
        hidden_padding = not one_group or not self.padding_visible
        # A window that overhangs a small map is cut to it where its padding would not be seen anyway.
        wh, ww = (min(self.window, height), min(self.window, width)) if hidden_padding else (self.window, self.window)
        padding = -height % wh, -width % ww
        if groups is None:
            groups = torch.zeros(1, height, width, dtype=torch.int64, device=x.device)
        offsets = relative_position_index(wh, ww, self.window, x.device).flatten()
        if by_clique is None:
            by_clique = x.device.type == "cpu" and not torch.compiler.is_compiling()
        if by_clique:
            if hidden_padding:
                padding = 0, 0
            groups = F.pad(groups, (0, padding[1], 0, padding[0]))
            return Windows((wh, ww), padding, Cliques.of(groups, (wh, ww)), None, offsets)
        if one_group and not (hidden_padding and any(padding)):
            return Windows((wh, ww), padding, None, None, offsets)
        groups = F.pad(groups, (0, padding[1], 0, padding[0]), value=PADDING)
        member = to_windows(groups.unsqueeze(-1), wh, ww).squeeze(-1)
        return Windows((wh, ww), padding, None, member.unsqueeze(-1) != member.unsqueeze(-2), offsets)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """x: (M, H, W, C). Returns (M, H, W, C)."""
        height, width = x.shape[1:3]
        down, across = windows.padding
        if down or across:
            x = F.pad(x, (0, 0, 0, across, 0, down))
        cliques = windows.cliques
        out = self._masked(x, windows) if cliques is None else self._by_clique(x, windows, cliques)
        return out[:, :height, :width]

    def _by_clique(self, x: Tensor, windows: Windows, cliques: Cliques) -> Tensor:
        tokens = x.flatten(1, 2) if cliques.shared else x.reshape(1, -1, x.shape[-1])
        qkv = self.qkv(tokens.index_select(1, cliques.order)).unflatten(-1, (3, self.num_heads, -1))
        out = _CliqueAttention.apply(qkv, self.position_bias(windows), cliques)
        return self.proj(out.flatten(2).index_select(1, cliques.inverse)).view_as(x)

    def _masked(self, x: Tensor, windows: Windows) -> Tensor:
        wh, ww = windows.shape
        qkv = self.qkv(to_windows(x, wh, ww)).unflatten(-1, (3, self.num_heads, -1))  # (M, windows, n, 3, heads, d)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(1, 2)  # (M * windows, heads, n, d)
        mask = self.position_bias(windows).to(q.dtype)
        if windows.blocked is not None:
            mask = mask.masked_fill(windows.blocked.unsqueeze(2), float("-inf"))  # (1 or M, windows, heads, n, n)
            mask = mask.expand(len(x), *mask.shape[1:]).flatten(0, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        return from_windows(self.proj(out).unflatten(0, (len(x), -1)), wh, ww, *x.shape[1:3])

    def position_bias(self, windows: Windows) -> Tensor:
        """(heads, n, n) of a window of n tokens."""
        n = windows.shape[0] * windows.shape[1]
        bias = self.relative_position_bias_table.index_select(0, windows.offsets)
        return bias.view(n, n, -1).permute(2, 0, 1).contiguous()


class _CliqueAttention(torch.autograd.Function):
    """Each clique's tokens to one another: qkv (M, T, 3, heads, d), bias (heads, n, n) -> (M, T, heads, d).

    Scores are made clique by clique and made again in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, cliques: Cliques) -> Tensor:
        ctx.save_for_backward(qkv, bias)
        ctx.cliques = cliques
        out = torch.empty_like(qkv[:, :, 0])
        runs = zip(qkv.split(cliques.sizes, 1), out.split(cliques.sizes, 1), cliques.positions.split(cliques.sizes))
        for qkv_run, out_run, position in runs:
            q, k, v = qkv_run.permute(2, 0, 3, 1, 4).contiguous()  # (M, heads, clique, d)
            out_run.copy_((_weights(q, k, _at(bias, position)) @ v).transpose(1, 2))
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, None]:
        qkv, bias = ctx.saved_tensors
        cliques = ctx.cliques
        grad_qkv, grad_bias = torch.empty_like(qkv), torch.zeros_like(bias)
        scale = qkv.shape[-1] ** -0.5
        sizes = cliques.sizes
        runs = zip(
            qkv.split(sizes, 1), grad_out.split(sizes, 1), grad_qkv.split(sizes, 1), cliques.positions.split(sizes)
        )
        for qkv_run, grad_run, grad_qkv_run, position in runs:
            q, k, v = qkv_run.permute(2, 0, 3, 1, 4).contiguous()
            grad = grad_run.transpose(1, 2).contiguous()
            weights = _weights(q, k, _at(bias, position))
            grad_weights = grad @ v.transpose(-1, -2)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            _add_at(grad_bias, position, grad_scores.sum(0))
            grad_qkv_run[:, :, 0] = (grad_scores @ k).mul_(scale).transpose(1, 2)
            grad_qkv_run[:, :, 1] = (grad_scores.transpose(-1, -2) @ q).mul_(scale).transpose(1, 2)
            grad_qkv_run[:, :, 2] = (weights.transpose(-1, -2) @ grad).transpose(1, 2)
        return grad_qkv, grad_bias, None


def _weights(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """Softmax of the scores, in the bias's precision (fp32 under autocast)."""
    scores = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).to(bias.dtype).add_(bias)
    return scores.softmax(-1).to(q.dtype)


def _at(bias: Tensor, position: Tensor) -> Tensor:
    """Rows and columns of (heads, n, n); a whole window has them all, in order."""
    return bias if len(position) == bias.shape[-1] else bias[:, position[:, None], position]


def _add_at(bias: Tensor, position: Tensor, addend: Tensor) -> None:
    if len(position) == bias.shape[-1]:
        bias += addend
    else:
        bias[:, position[:, None], position] += addend


def relative_position_index(height: int, width: int, window: int, device: torch.device | None = None) -> Tensor:
    """Rows (n, n) of a (2 window - 1)^2 bias table: entry (i, j) is the offset of token i from token j."""
    rows = torch.arange(height, device=device)
    cols = torch.arange(width, device=device)
    row, col = (t.flatten() for t in torch.meshgrid(rows, cols, indexing="ij"))
    return (row[:, None] - row + window - 1) * (2 * window - 1) + (col[:, None] - col + window - 1)


def to_windows(x: Tensor, height: int, width: int) -> Tensor:
    """(M, H, W, C) -> (M, windows, height * width, C)."""
    m, h, w, c = x.shape
    x = x.view(m, h // height, height, w // width, width, c).transpose(2, 3)
    return x.reshape(m, -1, height * width, c)


def from_windows(windows: Tensor, height: int, width: int, map_height: int, map_width: int) -> Tensor:
    """The inverse of `to_windows`: (M, windows, height * width, C) -> (M, map_height, map_width, C)."""
    m, _, _, c = windows.shape
    x = windows.view(m, map_height // height, map_width // width, height, width, c).transpose(2, 3)
    return x.reshape(m, map_height, map_width, c)
