"""MIM4D's networks filled from checkpoints: its own released ones, or any backbone's."""

import re
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from models.layouts.checkpoint import backbone_sizes
from models.layouts.filling import Checkpoint, Filled, fill
from models.layouts.mim4d import BACKBONE, FIELD, TEMPORAL

_MAY_LACK = r"backbone\.norm[23]\."  # a file of one level has no norm of the finer map


def fill_mim4d(model: nn.Module, checkpoint: Checkpoint) -> Filled:
    """Fill a MIM4D network in place: the backbone, and of temporal decoder and renderer's field what both have.

    All else stays as initialised, and is named. Raises WeightsMismatch where tensors do not fit.
    """
    own = model.state_dict()
    shared = [p for p in (BACKBONE, TEMPORAL, FIELD) if _has(own, p) and _has(checkpoint.weights, p)]
    weights = {name: tensor for name, tensor in checkpoint.weights.items() if name.startswith(tuple(shared))}
    beside = [name for ours, name in checkpoint.names.items() if ours not in weights]
    kept = replace(checkpoint, weights=weights, ignored=sorted([*checkpoint.ignored, *beside]))
    may_lack = re.compile(rf"(?!{'|'.join(map(re.escape, shared))})|{_MAY_LACK}")
    return fill(model, kept, mim4d_sizes, may_lack=may_lack)


def mim4d_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """What our names say of a MIM4D network's backbone and temporal decoder, the latter called as in `TemporalSpec`.

    cells: of the map, Y * X. folded: channels times heights. short_reads, long_reads: heads times points.
    """
    return backbone_sizes(state) | temporal_sizes({n.removeprefix(TEMPORAL): t for n, t in state.items()})


def temporal_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """The same of the names of `TemporalDecoder`; empty where one of them is missing."""
    branches = {branch: f"{branch}.layers.0" for branch in ("short", "long")}
    asked = ["frame_embeds", "short.queries", "proj.0.weight", "narrow.0.weight"]
    asked += [f"{first}.{layer}.weight" for first in branches.values() for layer in ("attention.weights", "fc1")]
    if not all(name in state for name in asked):
        return {}
    frames, (width, folded) = len(state["frame_embeds"]) - 1, state["proj.0.weight"].shape[:2]
    sizes: dict[str, Any] = {
        "cells": len(state["short.queries"]),
        "folded": folded,
        "frames": frames,
        "width": width,
        "reduction": width / len(state["narrow.0.weight"]),
        "layers": sum(bool(re.fullmatch(r"short\.layers\.\d+\.fc1\.weight", name)) for name in state),
    }
    for branch, first in branches.items():
        reads = len(state[f"{first}.attention.weights.weight"])
        sizes[f"{branch}_reads"] = reads if branch == "short" else reads / max(frames, 1)
        sizes[f"{branch}_ffn"] = len(state[f"{first}.fc1.weight"])
    return sizes


def _has(state: dict[str, Tensor], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in state)
