"""MIM4D's weights (and UniPAD's) under the names of their released checkpoints, and under ours.

| ours                              | released                                                       |
|-----------------------------------|----------------------------------------------------------------|
| backbone                          | img_backbone, a ConvNeXt: see models/layouts/convnext.py       |
| video.temporal.frame_embeds       | history_decoder.frame_embeds                                   |
| .short.queries, .long.queries     | .queries_short.weight, .queries_long.weight                    |
| .proj, .narrow, .out              | .proj, .input_proj, .output_proj                               |
| .short.layers.L, .long.layers.L   | .decoder_short.layers.L, .decoder_long.layers.L                |
| .attention.offsets, weights       | .attentions.0.sampling_offsets, attention_weights              |
| .attention.value, out             | .attentions.0.value_proj, output_proj                          |
| .fc1, .fc2, .norm1, .norm2        | .ffns.0.layers.0.0, .ffns.0.layers.1, .norms.0, .norms.1       |
| video.renderer.field.sdf, .rgb    | pts_bbox_head.render_model.field.sdf_decoder, rgb_decoder      |
| .point, .layers.I                 | .fc_p, .linI                                                   |
| .features, the layers' in one     | .fc_c.I, a linear layer for each                               |
| .deviation, a number              | .deviation_network.variance (1,)                               |

The neck, the depth net and what leads to the renderer are others here: those of a file are named, and not used. A
detector that was finetuned from it has the backbone alone. File names mislead about the backbone's size (one that is
called ConvNeXt-S was trained as a ConvNeXt-B): shapes tell it.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from models.layouts.convnext import UVTR, convnext_to_uvtr, read_convnext
from models.layouts.filling import Checkpoint, WeightsMismatch
from models.layouts.renaming import Renaming
from models.layouts.swin import with_prefix, without_prefix

BACKBONE, TEMPORAL, FIELD = "backbone.", "video.temporal.", "video.renderer.field."  # in our model
_BACKBONE, _TEMPORAL, _FIELD = "img_backbone.", "history_decoder.", "pts_bbox_head.render_model.field."

_DECODER = Renaming(
    (
        ("frame_embeds", "frame_embeds"),
        ("queries_short.weight", "short.queries"),
        ("queries_long.weight", "long.queries"),
        ("proj.", "proj."),
        ("input_proj.", "narrow."),
        ("output_proj.", "out."),
        ("decoder_short.layers.", "short.layers."),
        ("decoder_long.layers.", "long.layers."),
        (".attentions.0.sampling_offsets.", ".attention.offsets."),
        (".attentions.0.attention_weights.", ".attention.weights."),
        (".attentions.0.value_proj.", ".attention.value."),
        (".attentions.0.output_proj.", ".attention.out."),
        (".ffns.0.layers.0.0.", ".fc1."),
        (".ffns.0.layers.1.", ".fc2."),
        (".norms.0.", ".norm1."),
        (".norms.1.", ".norm2."),
    )
)
_EACH = ".fc_c.*."  # in place of a layer's number: one tensor here, several there
_TRUNKS = Renaming(
    (
        ("sdf_decoder.fc_c.*.", "sdf.features."),
        ("rgb_decoder.fc_c.*.", "rgb.features."),
        ("sdf_decoder.fc_p.", "sdf.point."),
        ("rgb_decoder.fc_p.", "rgb.point."),
        ("sdf_decoder.lin", "sdf.layers."),
        ("rgb_decoder.lin", "rgb.layers."),
        ("deviation_network.variance", "deviation"),
    )
)
_FEATURES = re.compile(r"((?:sdf|rgb)_decoder)\.fc_c\.(\d+)\.(weight|bias)")

# Below the file's prefix: names that are used, parts that are not, and what a running mean swapped out under flattened
# names (the mean itself stands under the plain ones).
_USED = re.compile(
    r"img_backbone\.(downsample_layers\.[0-3]\.[01]\.(weight|bias)|norm[0-3]\.(weight|bias)"
    r"|stages\.[0-3]\.\d+\.(gamma|(dwconv|norm|pwconv1|pwconv2)\.(weight|bias)))"
    r"|history_decoder\.(frame_embeds|queries_(short|long)\.weight|proj\.0\.weight|output_proj\.0\.weight"
    r"|(proj|output_proj)\.1\.(weight|bias)|input_proj\.[01]\.(weight|bias)|decoder_(short|long)\.layers\.\d+\."
    r"(attentions\.0\.(sampling_offsets|attention_weights|value_proj|output_proj)|ffns\.0\.layers\.(0\.0|1)|norms\.[01])"
    r"\.(weight|bias))"
    r"|pts_bbox_head\.render_model\.field\.((sdf|rgb)_decoder\.(fc_p|fc_c\.\d+|lin\d+)\.(weight|bias)"
    r"|deviation_network\.variance)"
)
_UNUSED = re.compile(
    r"(img_neck|input_proj|depth_net|view_trans|render_conv)\.|pts_bbox_head\.(render_conv|render_model\.field\."
    r"laplace_density)\."
)
_UNUSED_BY_DETECTORS = re.compile(r"(img_neck|input_proj|depth_net|view_trans|pts_bbox_head)\.")
_SWAPPED_OUT = re.compile(r"ema_[a-z_\d]+")

_ANCHOR = re.compile(r"((?:.*\.)?)img_backbone\.stages\.0\.0\.dwconv\.weight")


def read_mim4d(tensors: dict[str, Tensor]) -> Checkpoint | None:
    """A released pretraining checkpoint, or a detector finetuned from one, below any prefix; None for other files.

    Names that neither is known to have are `unknown`, and so refused when a network is filled. Raises WeightsMismatch
    for a field that does not hang together.
    """
    prefixes = [found[1] for name in tensors if (found := _ANCHOR.fullmatch(name))]
    if len(prefixes) != 1:
        return None
    (prefix,) = prefixes
    inside = {name: x for name, x in without_prefix(tensors, prefix).items() if not _SWAPPED_OUT.fullmatch(name)}
    pretrained = _begins(inside, _TEMPORAL, "pts_bbox_head.render_model.")
    if not pretrained and not (_begins(inside, "view_trans.") and _begins(inside, "pts_bbox_head.")):
        return None

    used = {name: x for name, x in inside.items() if _USED.fullmatch(name)}
    unused = _UNUSED if pretrained else _UNUSED_BY_DETECTORS
    ignored = {name for name in inside.keys() - used.keys() if unused.match(name)}
    unknown = inside.keys() - used.keys() - ignored
    backbone = read_convnext({name: x for name, x in used.items() if name.startswith(_BACKBONE)})
    if backbone is None:
        return None
    weights, names = dict(backbone.weights), dict(backbone.names)
    decoder = without_prefix(used, _TEMPORAL)
    for ours, theirs in _DECODER.read(decoder).items():
        weights[TEMPORAL + ours], names[TEMPORAL + ours] = decoder[theirs], _TEMPORAL + theirs
    field = without_prefix(used, _FIELD)
    for ours, (theirs, tensor) in _field(field).items():
        weights[FIELD + ours], names[FIELD + ours] = tensor, _FIELD + theirs
    return Checkpoint(
        "MIM4D" if pretrained else "uvtr",
        False,
        weights,
        {ours: prefix + theirs for ours, theirs in names.items()},
        sorted(prefix + name for name in [*ignored, *backbone.ignored]),
        sorted([*(prefix + name for name in unknown), *(name for name in tensors if not name.startswith(prefix))]),
        lambda ours: prefix + released_name(ours),
    )


def mim4d_to_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our model's names to the released ones: the backbone, a ConvNeXt, and where there are any the temporal decoder
    and the field. What else is in it has no place there."""
    written = with_prefix(convnext_to_uvtr(without_prefix(state, BACKBONE)), _BACKBONE)
    for ours, tensor in state.items():
        if not ours.startswith((TEMPORAL, FIELD)):
            continue
        theirs = released_name(ours)
        if _EACH in theirs:
            trunk = ours.removesuffix(".weight").removesuffix(".bias").removesuffix("features")
            layers = sum(name.startswith(f"{trunk}layers.") and name.endswith(".bias") for name in state)
            for layer, part in enumerate(tensor.chunk(layers)):
                written[theirs.replace(_EACH, f".fc_c.{layer}.")] = part.clone()
        else:
            written[theirs] = tensor.reshape(1) if ours == f"{FIELD}deviation" else tensor
    return written


def released_name(ours: str) -> str:
    """What a released checkpoint calls a tensor of ours; `fc_c.*` for what is one tensor here and several there. A name
    without a place there as it is."""
    for prefix, theirs, renaming in (
        (BACKBONE, _BACKBONE, UVTR),
        (TEMPORAL, _TEMPORAL, _DECODER),
        (FIELD, _FIELD, _TRUNKS),
    ):
        rest = ours.removeprefix(prefix)
        if rest != ours and (renamed := renaming.to_theirs(rest)) is not None:
            return theirs + renamed
    return ours


def temporal_from_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names below `history_decoder.` to those of `models.mim4d.temporal.TemporalDecoder`."""
    decoder = without_prefix(state, _TEMPORAL)
    return {ours: decoder[theirs] for ours, theirs in _DECODER.read(decoder).items()}


def field_from_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names below `pts_bbox_head.render_model.field.` to those of the renderer's field."""
    return {ours: tensor for ours, (_, tensor) in _field(without_prefix(state, _FIELD)).items()}


def _field(field: dict[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """Our name -> the file's and the tensor."""
    whole = {name: tensor for name, tensor in field.items() if not _FEATURES.fullmatch(name)}
    parts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in field.items():
        if found := _FEATURES.fullmatch(name):
            parts.setdefault(f"{found[1]}{_EACH}{found[3]}", {})[int(found[2])] = tensor
    for name, layers in parts.items():
        shapes = {tuple(tensor.shape) for tensor in layers.values()}
        if len(shapes) > 1 or sorted(layers) != list(range(len(layers))):
            raise WeightsMismatch(
                f"{_FIELD}{name}: {len(layers)} layers up to {max(layers)} of the shapes "
                f"{', '.join(map(str, sorted(shapes)))}, which are not one for each layer of a trunk"
            )
        whole[name] = torch.cat([layers[i] for i in range(len(layers))])
    read = {ours: (theirs, whole[theirs]) for ours, theirs in _TRUNKS.read(whole).items()}
    if "deviation" in read and read["deviation"][1].numel() == 1:
        read["deviation"] = read["deviation"][0], read["deviation"][1].reshape(())
    return read


def _begins(names: Iterable[str], *prefixes: str) -> bool:
    """Whether any of them does."""
    return any(name.startswith(prefixes) for name in names)
