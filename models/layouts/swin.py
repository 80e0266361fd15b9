"""A Swin's weights under the names of mmdet, of the original Swin repository and of timm, and under ours.

| ours                           | mmdet, BEVDet                | original                | timm                    |
|--------------------------------|------------------------------|-------------------------|-------------------------|
| patch_embed.projection         | the same                     | patch_embed.proj        | patch_embed.proj        |
| absolute_pos_embed (1, C, h, w)| the same, or (1, h w, C)     | (1, h w, C)             | none                    |
| stages.S.blocks.B.attn         | stages.S.blocks.B.attn.w_msa | layers.S.blocks.B.attn  | layers.S.blocks.B.attn  |
| stages.S.blocks.B.mlp.fc1, fc2 | .ffn.layers.0.0, .ffn.layers.1| .mlp.fc1, .mlp.fc2     | .mlp.fc1, .mlp.fc2      |
| stages.S.downsample            | the same                     | layers.S.downsample     | layers.(S + 1).downsample |
| norm2                          | the same                     | none                    | none                    |
| norm3                          | the same                     | norm                    | norm                    |

timm before 0.9 has the original's names. The original and timm merge patches in another order of channels. Index
buffers follow from the window's size: they are written where the layout has them and never read.
"""

import math
import re
from typing import Any

from torch import Tensor

from models.backbones.window_attention import relative_position_index
from models.layouts.renaming import Renaming
from models.layouts.tables import grid_to_tokens, tokens_to_grid

_TABLE, _INDEX, _POSITION = "relative_position_bias_table", "relative_position_index", "absolute_pos_embed"

_MMDET = Renaming(
    (("", ""), (".attn.w_msa.", ".attn."), (".ffn.layers.0.0.", ".mlp.fc1."), (".ffn.layers.1.", ".mlp.fc2."))
)
_ORIGINAL = Renaming(
    (("patch_embed.proj.", "patch_embed.projection."), ("layers.", "stages."), ("norm.", "norm3."), ("", ""))
)

# Constants of the window and image sizes that checkpoints carry.
BUFFERS = re.compile(rf"(^|\.)({_INDEX}|attn_mask)$")


def without_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under `prefix`, named without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def with_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """All entries, named with `prefix` before."""
    return {prefix + name: value for name, value in state.items()}


def swin_from_mmdet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """mmdet's names (any prefix) to ours; index buffers are left out."""
    renamed = {}
    for name, value in state.items():
        if BUFFERS.search(name):
            continue
        renamed[_MMDET.to_ours(name) or name] = tokens_to_grid(value) if name.endswith(_POSITION) else value
    return renamed


def swin_to_mmdet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names of a Swin or of a Swin block (any prefix) to mmdet's, with its index buffers."""
    return {_MMDET.to_theirs(name) or name: value for name, value in with_index_buffers(state).items()}


def swin_from_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The original's or timm's names (no prefix) to ours; index buffers and masks are left out.

    Where patches are merged tells the two apart: at the end of a stage, or (timm since 0.9) at the start of the next.
    """
    late = 0 if any(name.startswith("layers.0.downsample.") for name in state) else 1
    renamed = {}
    for name, value in state.items():
        if BUFFERS.search(name):
            continue
        if ".downsample." in name:
            name = _of_stage(name, -late)
            value = merging_from_original(value)
        elif name == _POSITION:
            value = tokens_to_grid(value)
        renamed[_ORIGINAL.to_ours(name) or name] = value
    return renamed


def swin_to_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names (no prefix) to the original's, with its index buffers. norm2 has no place there."""
    renamed = {}
    for name, value in with_index_buffers(state).items():
        if name.startswith("norm2."):
            continue
        if ".downsample." in name:
            value = merging_to_original(value)
        elif name == _POSITION:
            value = grid_to_tokens(value)
        renamed[_ORIGINAL.to_theirs(name) or name] = value
    return renamed


def swin_to_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names (no prefix) to timm's since 0.9. norm2 and the absolute position embedding have no place there."""
    return {
        _of_stage(name, 1) if ".downsample." in name else name: value
        for name, value in swin_to_original(state).items()
        if name != _POSITION and not BUFFERS.search(name)
    }


def merging_from_original(x: Tensor) -> Tensor:
    """The 4C channels of patch merging, last in `x`, from the original's order to ours.

    Original: four blocks of C, of the neighbours (row, column) = 00, 10, 01, 11. Ours and mmdet's: channel by channel,
    its four neighbours 00, 01, 10, 11 side by side.
    """
    return x.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :].transpose(-1, -2).flatten(-2).contiguous()


def merging_to_original(x: Tensor) -> Tensor:
    """The inverse of `merging_from_original`."""
    return x.unflatten(-1, (-1, 4)).transpose(-1, -2)[..., [0, 2, 1, 3], :].flatten(-2).contiguous()


def with_index_buffers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` and, beside every bias table, the index of it that other implementations keep as a buffer."""
    whole = {}
    for name, value in state.items():
        whole[name] = value
        if name.endswith(_TABLE):
            window = window_of(value)
            whole[name.removesuffix(_TABLE) + _INDEX] = relative_position_index(window, window, window)
    return whole


def window_of(table: Tensor) -> int:
    """Tokens a side of the window that a bias table ((2 w - 1)^2, heads) belongs to."""
    return (math.isqrt(len(table)) + 1) // 2


def swin_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """What our names (no prefix) say of a Swin, called as in `SwinConfig`; pretrain_grid only where
    there is a position embedding. Of a first stage without blocks nothing tells heads and window.
    """
    tables: dict[int, list[Tensor]] = {}
    for name, value in state.items():
        if found := re.fullmatch(rf"stages\.(\d+)\.blocks\.\d+\.attn\.{_TABLE}", name):
            tables.setdefault(int(found[1]), []).append(value)
    stages = [tables.get(stage, []) for stage in range(max(tables, default=-1) + 1)]
    first = min(tables, default=0)
    grid = {"pretrain_grid": state[_POSITION].shape[-1]} if _POSITION in state else {}
    patches, hidden = state["patch_embed.projection.weight"], state.get(f"stages.{first}.blocks.0.mlp.fc1.weight")
    ratio = {} if hidden is None else {"mlp_ratio": len(hidden) / hidden.shape[1]}
    return {
        "embed_dim": len(patches),
        "patch_size": patches.shape[-1],
        **ratio,
        "depths": tuple(len(blocks) for blocks in stages),
        "num_heads": tuple(blocks[0].shape[-1] if blocks else 1 for blocks in stages),
        "window_sizes": tuple(window_of((blocks or tables[first])[0]) for blocks in stages),
        **grid,
    }


def _of_stage(name: str, shift: int) -> str:
    return re.sub(r"^layers\.(\d+)", lambda found: f"layers.{int(found[1]) + shift}", name)
