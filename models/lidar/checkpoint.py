"""The sparse encoder's weights out of the files people have: ours, MIT BEVFusion's, mmdetection3d's.

All three name the encoder's tensors alike below a prefix. Convolution kernels come in two layouts, told apart by where
the input channels stand in `conv_input.0.weight`, never by a version number:
spconv 1, mmcv and MIT (kx, ky, kz, in, out), which is this project's; spconv 2 (out, kx, ky, kz, in).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from models.lidar.encoder import SparseEncoder

# Where the encoder lies in a file: our fitted detector, mmdetection3d's BEVFusion, MIT's, a bare encoder.
PREFIXES = ("encoder.", "pts_middle_encoder.", "encoders.lidar.backbone.", "")
_ANCHOR = "conv_input.0.weight"


class CheckpointMismatch(ValueError):
    """A checkpoint that does not fill the encoder; the text lists every tensor in question."""


def load_encoder(encoder: SparseEncoder, tensors: Mapping[str, Tensor]) -> list[str]:
    """Fill `encoder` in place from a checkpoint's tensors; the names (ascending) of those it has no use for.

    Strict: every parameter and buffer is filled from a tensor of its shape and every tensor below the encoder's prefix
    is used, or CheckpointMismatch lists what is missing, unexpected or of a wrong shape, and nothing is changed.
    """
    prefix = next((p for p in PREFIXES if p + _ANCHOR in tensors), None)
    if prefix is None:
        raise CheckpointMismatch(
            f"no sparse encoder in it: none of {', '.join(p + _ANCHOR for p in PREFIXES)}; "
            f"it has {', '.join(sorted(tensors)[:3]) or 'no tensors'} ..."
        )
    own = encoder.state_dict()
    given = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    if prefix == "":
        given = {name: t for name, t in given.items() if name in own}
    turn = _kernel_layout(given[_ANCHOR].shape, own[_ANCHOR].shape)
    given = {name: t.permute(turn) if t.ndim == 5 else t for name, t in given.items()}

    faults = [f"missing: {prefix}{name}" for name in own if name not in given and not name.endswith("batches_tracked")]
    faults += [f"unexpected: {prefix}{name}" for name in given if name not in own]
    for name, tensor in own.items():
        if name in given and given[name].shape != tensor.shape:
            faults.append(
                f"{prefix}{name}: {tuple(given[name].shape)} in the file, {tuple(tensor.shape)} in the config"
            )
        elif name in given and not torch.isfinite(given[name]).all():
            faults.append(f"{prefix}{name}: values that are not finite")
    if faults:
        raise CheckpointMismatch("; ".join(faults))
    encoder.load_state_dict(given, strict=False)
    return sorted(name for name in tensors if name.removeprefix(prefix) not in given or not name.startswith(prefix))


def _kernel_layout(anchor: torch.Size, wanted: torch.Size) -> tuple[int, ...]:
    """The permutation that brings a file's kernels to (kx, ky, kz, in, out)."""
    if tuple(anchor[:3]) == (3, 3, 3) and anchor[3] == wanted[3]:
        return (0, 1, 2, 3, 4)
    if tuple(anchor[1:4]) == (3, 3, 3) and anchor[4] == wanted[3]:
        return (1, 2, 3, 4, 0)
    raise CheckpointMismatch(
        f"{_ANCHOR} is {tuple(anchor)}: neither (3, 3, 3, {wanted[3]}, out) (spconv 1) "
        f"nor (out, 3, 3, 3, {wanted[3]}) (spconv 2)"
    )
