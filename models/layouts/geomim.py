"""GeoMIM's weights under the names of the original's pretraining checkpoints, and under ours."""

import re

import torch
from torch import Tensor

from models.depth_bins import DepthBins
from models.layouts.renaming import Renaming
from models.layouts.swin import swin_from_mmdet, swin_to_mmdet, with_prefix
from models.layouts.tables import tokens_to_grid
from models.lift_splat import BevGrid
from models.rays import frustum

BACKBONE = "encoders.camera.backbone."
_VIEW_TRANSFORM = "encoders.camera.vtransform."

# The decoder's names in the original's backbone, some of which MixMAE has too.
_DECODER = (
    ("mask_token", "decoder.mask_token"),
    ("decoder_pos_embed", "decoder.pos_embed"),
    ("decoder_embed_new.", "decoder.embed."),
    ("decoder_norm.", "decoder.norm."),
    ("decoder_blocks.", "decoder.blocks."),
    ("decoder_norm_pix.", "decoder.geometry_norm."),
    ("decoder_blocks_pix.", "decoder.geometry_blocks."),
    ("decoder_cross_module.2.", "decoder.geometry_cross_blocks.0."),
    ("decoder_cross_module.", "decoder.cross_blocks."),
    ("cam_pose.bn.", "decoder.camera_gate.bn."),
    ("cam_pose.depth_mlp.", "decoder.camera_gate.mlp."),
    ("cam_pose.depth_se.conv_reduce.", "decoder.camera_gate.reduce."),
    ("cam_pose.depth_se.conv_expand.", "decoder.camera_gate.expand."),
)
_FUSION = (("up_p4_fc.", "fusion.project."), ("up_smooth_p4.", "fusion.block."), ("final_norm.", "fusion.norm."))

_ORIGINAL = Renaming(
    (
        (_VIEW_TRANSFORM + "depthnet.", "view_transform.depth_net."),
        (_VIEW_TRANSFORM + "downsample.", "view_transform.downsample."),
        ("prediction_head.", "head."),
        *((BACKBONE + theirs, ours) for theirs, ours in (*_FUSION, *_DECODER)),
        (BACKBONE, "backbone."),
        ("", ""),  # what the model has no place for keeps its name
    )
)
_MIXMAE = Renaming(_DECODER)

# Of the original's checkpoints: the geometry of its config, and the frozen teacher.
CONSTANTS = re.compile(r"^encoders\.camera\.vtransform\.(dx|bx|nx|frustum)$")
TEACHER = "encoders.lidar."

# The part of MixMAE's decoder with which the original begins its own. Its first layer is not among them: MixMAE decodes
# the last stage, GeoMIM a map of two.
MIXMAE_DECODER = re.compile(r"(mask_token|decoder_pos_embed)$|decoder_(norm|blocks)\.")


def geomim_from_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The original pretraining checkpoint's names to those of `models.geomim.model.GeoMIM`.

    The teacher and what this project makes from the config are left out.
    """
    kept = [name for name in state if not name.startswith(TEACHER) and not CONSTANTS.match(name)]
    return swin_from_mmdet({ours: state[theirs] for ours, theirs in _ORIGINAL.read(kept).items()})


def geomim_to_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of `models.geomim.model.GeoMIM` to the original's, with its index buffers."""
    renamed = {}
    for name, value in state.items():
        one = {name: value}
        # In the decoder, blocks have the same names in both.
        for ours, tensor in (swin_to_mmdet(one) if name.startswith(("backbone.", "fusion.")) else one).items():
            renamed[_ORIGINAL.to_theirs(ours) or ours] = tensor
    return renamed


def original_constants(grid: BevGrid, bins: DepthBins, image_size: tuple[int, int], stride: int) -> dict[str, Tensor]:
    """What the original's checkpoints hold of its geometry, which no module here keeps.

    dx, bx, nx: size, first centre (m) and number of the BEV's cells along x, y, z; frustum: its points (D, h, w, 3), px
    and m. image_size: (H, W) px.
    """
    sizes = torch.tensor([grid.cell, grid.cell, grid.z[1] - grid.z[0]], dtype=torch.float64)
    lows = torch.tensor([grid.x[0], grid.y[0], grid.z[0]], dtype=torch.float64)
    constants = {
        "dx": sizes.float(),
        "bx": (lows + sizes / 2).float(),
        "nx": torch.tensor([*grid.shape, 1]),
        "frustum": frustum(bins.edges(), image_size, stride).float(),
    }
    return with_prefix(constants, _VIEW_TRANSFORM)


def decoder_from_mixmae(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """MixMAE's names that MIXMAE_DECODER describes to those of `models.geomim.model.GeoMIM`."""
    return {
        ours: tokens_to_grid(state[theirs]) if theirs == "decoder_pos_embed" else state[theirs]
        for ours, theirs in _MIXMAE.read(state).items()
    }
