"""The Swin whose windows never shift, as GeoMIM's and BEVDet's configs say it."""

from collections.abc import Sequence

from pydantic import ValidationError

from models.backbones.config import SwinConfig
from models.public.norms import BEGINNING
from models.public.used import UnreadableConfig, Used

_IGNORED = BEGINNING | {
    "with_cp": "memory of training",
    "drop_rate": "of training",
    "attn_drop_rate": "of training",
    "drop_path_rate": "of training",
    "frozen_stages": "of training",
    "return_stereo_feat": "whether the first stage's map is handed on: stereo takes it",
    "output_missing_index_as_none": "how stages that are not output are handed on",
}


def read_swin(section: Used, out_indices: Sequence[int], kind: str) -> SwinConfig:
    """A section's Swin of the class `kind`, whose last two stages are used; the section may say more, and stays open.

    out_indices: the stages that are output where the section is silent.
    """
    section.fixed("type", kind)
    section.fixed("out_indices", (2, 3), default=out_indices)
    for key, only in {
        "in_channels": 3,
        "patch_size": 4,
        "strides": (4, 2, 2, 2),
        "qkv_bias": True,
        "qk_scale": None,
        "patch_norm": True,
        "use_abs_pos_embed": True,
        "act_cfg": {"type": "GELU"},
        "norm_cfg": {"type": "LN"},
    }.items():
        section.fixed(key, only)
    section.ignore(_IGNORED)
    sizes = {
        "embed_dim": section.integer("embed_dims", 128),
        "depths": section.integers("depths", 4, (2, 2, 18, 2)),
        "num_heads": section.integers("num_heads", 4, (4, 8, 16, 32)),
        "window_sizes": section.integers("window_size", 4, (16, 16, 16, 8)),
        "mlp_ratio": section.number("mlp_ratio", 4, least=0.125),
        "pretrain_grid": section.integer("pretrain_img_size", 224, least=4) // 4,
    }
    try:
        return SwinConfig(**sizes)
    except ValidationError as error:
        fault = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UnreadableConfig(f"{section.at('num_heads')}: {fault}") from None
