"""Batch normalisation and convolutions as OpenMMLab's configs name them."""

from models.norm import LIKE_TORCH, Norm
from models.public.used import UnreadableConfig, Used

# What says where weights begin, in every part: a checkpoint's come after.
BEGINNING = dict.fromkeys(("init_cfg", "pretrained", "convert_weights"), "where weights begin, before the checkpoint's")

# Of several GPUs "Sync" joins the statistics of a training batch; evaluated they are all the same layer.
_BATCH_NORMS = ("BN", "BN1d", "BN2d", "SyncBN", "naiveSyncBN1d", "naiveSyncBN2d")


def read_norm(section: Used, default: Norm = LIKE_TORCH) -> Norm:
    """`norm_cfg` of a section; default: the public code's where it is missing."""
    if section.value("norm_cfg", None) is None:
        return default
    with section.section("norm_cfg") as norm:
        if (kind := norm.value("type")) not in _BATCH_NORMS:
            raise UnreadableConfig(f"{norm.at('type')} is {kind!r}: only batch normalisation is implemented here")
        norm.ignore({"requires_grad": "whether training changes it"})
        return Norm(norm.number("eps", LIKE_TORCH.eps), norm.number("momentum", LIKE_TORCH.momentum))


def torchs_norm(section: Used) -> None:
    """Read `norm_cfg` of a part that has torch's numbers here. Raises UnreadableConfig for others."""
    if (norm := read_norm(section)) != LIKE_TORCH:
        raise UnreadableConfig(f"{section.at('norm_cfg')} is {norm}: only {LIKE_TORCH} is implemented here")
