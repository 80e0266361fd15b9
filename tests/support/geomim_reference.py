"""GeoMIM's forward pass written the obvious way, over the weights of a `GeoMIM`: what the fast path is held against.

Every window is padded to full size and attends through its whole score matrix, to which -1e30 is added between tokens
of different halves; every image and every row through its own; the frustum features (B, N, D, h, w, C) stand in memory
and are added into the grid; autograd keeps what it wants. Parameters are the fast model's, no arithmetic is.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.swin import Swin, SwinBlock
from models.backbones.window_attention import relative_position_index
from models.cameras import Cameras
from models.geomim.blocks import Block, CrossViewBlock
from models.geomim.decoder import Decoder
from models.geomim.model import GeoMIM, Reconstruction
from models.geomim.view_transform import ViewTransform

BLOCKED = -1e30
PADDING = -2  # the half of window padding


def forward(model: GeoMIM, images: Tensor, cameras: Cameras, groups: Tensor) -> Reconstruction:
    """`GeoMIM.forward`, slowly: images (B, N, 3, H, W), groups (1 or B*N, cells down, cells across)."""
    batch, views = images.shape[:2]
    c4, c5 = encode(model.backbone, images.flatten(0, 1), groups)
    top = model.fusion.project(c5).repeat_interleave(2, 1).repeat_interleave(2, 2)
    fused_groups = at_grid(groups, *c4.shape[1:3])
    fused = model.fusion.norm(swin_block(model.fusion.block, c4 + top[:, : c4.shape[1], : c4.shape[2]], fused_groups))
    camera = cameras.vector().flatten(0, 1)
    semantic, geometry = decode(model.decoder, fused, fused_groups, camera, views)
    cells = model.view_transform.cells(cameras, tuple(images.shape[-2:]), model.stride)
    made = []
    for half in (0, 1):
        part = slice(half * batch * views, (half + 1) * batch * views)
        bev, depth_prob = to_bev(model.view_transform, semantic[part], geometry[part], cells)
        made.append((model.head(bev), depth_prob))
    return Reconstruction(*(torch.stack(parts) for parts in zip(*made)))


def at_grid(groups: Tensor, height: int, width: int) -> Tensor:
    """Groups of the cells -> of the tokens (1 or M, height, width)."""
    rows = torch.arange(height) * groups.shape[1] // height
    columns = torch.arange(width) * groups.shape[2] // width
    return groups[:, rows][:, :, columns]


# The encoder


def encode(swin: Swin, images: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Stages 3 and 4, normalised: (M, h, w, C) and (M, h/2, w/2, 2C)."""
    x = swin.patch_embed(images)
    x = x + swin.position_embedding(x.shape[1], x.shape[2])
    maps = []
    for stage in swin.stages:
        stage_groups = at_grid(groups, x.shape[1], x.shape[2])
        for block in stage.blocks:
            x = swin_block(block, x, stage_groups)
        maps.append(x)
        x = x if stage.downsample is None else stage.downsample(x)
    return swin.norm2(maps[2]), swin.norm3(maps[3])


def swin_block(block: SwinBlock, x: Tensor, groups: Tensor) -> Tensor:
    x = x + window_attention(block, block.norm1(x), groups)
    return x + mlp(block.mlp, block.norm2(x))


def window_attention(block: SwinBlock, x: Tensor, groups: Tensor) -> Tensor:
    attention = block.attn
    w, heads = attention.window, attention.num_heads
    m, height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, -width % w, 0, -height % w))
    groups = F.pad(groups, (0, -width % w, 0, -height % w), value=PADDING)
    down, across = x.shape[1] // w, x.shape[2] // w

    windows = x.view(m, down, w, across, w, channels).transpose(2, 3).reshape(m, down * across, w * w, channels)
    window_groups = groups.view(-1, down, w, across, w).transpose(2, 3).reshape(-1, down * across, w * w)
    index = relative_position_index(w, w, w)
    bias = attention.relative_position_bias_table[index.flatten()].view(w * w, w * w, heads).permute(2, 0, 1)
    different = window_groups.unsqueeze(-1) != window_groups.unsqueeze(-2)

    qkv = attention.qkv(windows).view(m, down * across, w * w, 3, heads, channels // heads)
    q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # (M, windows, heads, tokens, C / heads)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    scores = scores + bias
    scores = scores + different.unsqueeze(2) * BLOCKED
    out = (scores.softmax(-1) @ v).transpose(2, 3).reshape(m, down, across, w, w, channels)
    out = attention.proj(out).transpose(2, 3).reshape(m, down * w, across * w, channels)
    return out[:, :height, :width]


def mlp(layers: nn.Module, x: Tensor) -> Tensor:
    return layers.fc2(F.gelu(layers.fc1(x)))


# The decoder


def decode(decoder: Decoder, fused: Tensor, groups: Tensor, camera: Tensor, views: int) -> tuple[Tensor, Tensor]:
    """Semantic and geometry maps (2M, C, h, w), of all the paper's parts."""
    tokens = decoder.embed(fused)
    halves = [torch.where((groups == half).unsqueeze(-1), tokens, decoder.mask_token[0]) for half in (0, 1)]
    x = torch.cat(halves) + decoder.position_embedding(*tokens.shape[1:3])

    crosses = dict(zip(decoder.cross_after, decoder.cross_blocks))
    for i, block in enumerate(decoder.blocks):
        x = decoder_block(block, x)
        x = cross_view_block(crosses[i], x, views) if i in crosses else x
        if i == decoder.fork_after:
            fork = x
    semantic = decoder.norm(x)

    x = decoder.camera_gate(fork, torch.cat([camera, camera]))
    crosses = dict(zip(decoder.geometry_cross_after, decoder.geometry_cross_blocks))
    for i, block in enumerate(decoder.geometry_blocks):
        x = decoder_block(block, x)
        x = cross_view_block(crosses[i], x, views) if i in crosses else x
    return semantic.permute(0, 3, 1, 2), decoder.geometry_norm(x).permute(0, 3, 1, 2)


def decoder_block(block: Block, x: Tensor) -> Tensor:
    x = x + full_attention(block.attn, block.norm1(x).flatten(1, 2)).view_as(x)
    return x + mlp(block.mlp, block.norm2(x))


def cross_view_block(block: CrossViewBlock, x: Tensor, views: int) -> Tensor:
    m, height, width, channels = x.shape
    rows = block.norm1(x).view(m // views, views, height, width, channels).transpose(1, 2)
    out = full_attention(block.attn, rows.reshape(m // views * height, views * width, channels))
    x = x + out.view(m // views, height, views, width, channels).transpose(1, 2).reshape(x.shape)
    return x + mlp(block.mlp, block.norm2(x))


def full_attention(attention: nn.Module, x: Tensor) -> Tensor:
    """x: (G, T, C)."""
    g, t, channels = x.shape
    heads = attention.num_heads
    q, k, v = attention.qkv(x).view(g, t, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(-1, -2)) * (channels // heads) ** -0.5  # (G, heads, T, T)
    return attention.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(g, t, channels))


# To the bird's eye


def to_bev(transform: ViewTransform, semantic: Tensor, geometry: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """BEV (B, C, X, Y) and depth probabilities (B, N, D, h, w) of one half's maps (B*N, dim, h, w)."""
    batch, views, bins = cells.shape[:3]
    out = transform.depth_net(torch.cat([geometry, semantic], 1)).unflatten(0, (batch, views))
    depth_prob, context = out[:, :, :bins].softmax(2), out[:, :, bins:]
    lifted = depth_prob.unsqueeze(-1) * context.permute(0, 1, 3, 4, 2).unsqueeze(2)  # (B, N, D, h, w, C)
    nx, ny = transform.grid.shape
    pooled = []
    for sample, sample_cells in zip(lifted, cells):
        inside = sample_cells >= 0
        grid = sample.new_zeros(nx * ny, sample.shape[-1]).index_add(0, sample_cells[inside], sample[inside])
        pooled.append(grid.T.unflatten(1, (nx, ny)))
    return transform.downsample(torch.stack(pooled)), depth_prob
