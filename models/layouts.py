"""Names of weights in the released checkpoints, and in this project's modules."""

import re

from torch import Tensor

_SWIN_RENAMES = (
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)


def swin_from_mmdet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """mmdet's Swin names (no prefix) to those of `models.swin.Swin`; index buffers, which are rebuilt, are left out."""
    renamed = {}
    for name, value in state.items():
        if name.endswith("relative_position_index"):
            continue
        for pattern, replacement in _SWIN_RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def without_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under `prefix`, named without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


_GEOMIM_RENAMES = (
    (r"^encoders\.camera\.vtransform\.depthnet\.", "view_transform.depth_net."),
    (r"^encoders\.camera\.vtransform\.downsample\.", "view_transform.downsample."),
    (r"^prediction_head\.", "head."),
    (r"^encoders\.camera\.backbone\.up_p4_fc\.", "fusion.project."),
    (r"^encoders\.camera\.backbone\.up_smooth_p4\.", "fusion.block."),
    (r"^encoders\.camera\.backbone\.final_norm\.", "fusion.norm."),
    (r"^encoders\.camera\.backbone\.mask_token$", "decoder.mask_token"),
    (r"^encoders\.camera\.backbone\.decoder_pos_embed$", "decoder.pos_embed"),
    (r"^encoders\.camera\.backbone\.decoder_embed_new\.", "decoder.embed."),
    (r"^encoders\.camera\.backbone\.decoder_norm\.", "decoder.norm."),
    (r"^encoders\.camera\.backbone\.decoder_blocks\.", "decoder.blocks."),
    (r"^encoders\.camera\.backbone\.decoder_norm_pix\.", "decoder.geometry_norm."),
    (r"^encoders\.camera\.backbone\.decoder_blocks_pix\.", "decoder.geometry_blocks."),
    (r"^encoders\.camera\.backbone\.decoder_cross_module\.2\.", "decoder.geometry_cross_blocks.0."),
    (r"^encoders\.camera\.backbone\.decoder_cross_module\.", "decoder.cross_blocks."),
    (r"^encoders\.camera\.backbone\.cam_pose\.bn\.", "decoder.camera_gate.bn."),
    (r"^encoders\.camera\.backbone\.cam_pose\.depth_mlp\.", "decoder.camera_gate.mlp."),
    (r"^encoders\.camera\.backbone\.cam_pose\.depth_se\.conv_(reduce|expand)\.", r"decoder.camera_gate.\1."),
    (r"^encoders\.camera\.backbone\.", "backbone."),
)

# Rebuilt from the config here, stored there.
_GEOMIM_CONSTANTS = re.compile(r"^encoders\.camera\.vtransform\.(dx|bx|nx|frustum)$|^encoders\.lidar\.")


def geomim_from_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The original pretraining checkpoint's names to those of `models.geomim.model.GeoMIM`; the teacher is left out."""
    renamed = {}
    for name, value in state.items():
        if _GEOMIM_CONSTANTS.match(name):
            continue
        for pattern, replacement in _GEOMIM_RENAMES:
            name, count = re.subn(pattern, replacement, name)
            if count:
                break
        renamed[name] = value
    return swin_from_mmdet(renamed)
