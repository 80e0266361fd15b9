"""Names of weights in public BEVDet checkpoints, and in `BevDet`."""

from torch import Tensor

from models.layouts import swin_from_mmdet, without_prefix

# public prefix -> ours; the layers below have the same names
PARTS = {
    "img_neck.": "image_neck.",
    "img_view_transformer.depth_net.cost_volumn_net.": "depth_net.cost_net.",
    "img_view_transformer.depth_net.": "depth_net.",
    "pre_process_net.": "pre_encoder.",
    "img_bev_encoder_backbone.": "bev_encoder.",
    "img_bev_encoder_neck.": "bev_neck.",
    "pts_bbox_head.": "head.net.",
}


def bevdet_from_public(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A public BEVDet state dict with this project's names. Entries that `BevDet` has no place for are left out."""
    renamed = {f"backbone.{k}": v for k, v in swin_from_mmdet(without_prefix(state, "img_backbone.")).items()}
    for name, value in state.items():
        for public, ours in PARTS.items():
            if name.startswith(public):
                renamed[ours + name.removeprefix(public)] = value
                break
    return renamed
