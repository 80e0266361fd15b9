"""Filling a network from a file's tensors, strictly.

Every tensor of the file is used, or is named as ignored; every tensor of the network is filled, or is one that the file
may lack and is named as left; none is resized unless the caller says how. Otherwise WeightsMismatch lists what does not
fit, and nothing is changed.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

NAMES_SHOWN = 12  # of each kind of fault

# A tensor of this name as one of this shape, and what was done in words; the tensor itself and "" where nothing was.
Resize = Callable[[str, Tensor, torch.Size], tuple[Tensor, str]]


class WeightsMismatch(ValueError):
    """Weights that do not fill a network; the text says in which sizes they differ and lists the tensors."""


@dataclass(frozen=True)
class Checkpoint:
    """A file's tensors, told by their names.

    layout: for people. whole: it is meant to fill all of the network, not its backbone alone. weights: our name ->
    tensor. names: the same names -> those in the file. ignored: the file's names of tensors without a place; buffers
    that follow from the config are not listed. unknown: those of tensors that may be part of the network. to_file: what
    the file would call a tensor that it lacks.
    """

    layout: str
    whole: bool
    weights: dict[str, Tensor]
    names: dict[str, str]
    ignored: list[str]
    unknown: Sequence[str] = ()
    to_file: Callable[[str], str] = str


@dataclass(frozen=True)
class Filled:
    """What became of a network, and of a file.

    filled, left: names in the network (left as they were); resized: what, from and to -> how many; ignored: names in
    the file.
    """

    filled: list[str]
    left: list[str]
    resized: Counter[str]
    ignored: list[str]

    def __str__(self) -> str:
        resized = ", ".join(what if count == 1 else f"{what} ({count})" for what, count in self.resized.items())
        parts = {
            "filled": grouped(self.filled, depth=1),
            "resized": resized,
            "left as initialised": grouped(self.left),
            "ignored": grouped(self.ignored),
        }
        return "\n".join(f"  {what}: {names}" for what, names in parts.items() if names)


def fill(
    module: nn.Module,
    checkpoint: Checkpoint,
    sizes_of: Callable[[dict[str, Tensor]], dict[str, Any]],
    prefix: str = "",
    may_lack: re.Pattern[str] | None = None,
    resize: Resize | None = None,
) -> Filled:
    """Fill a module in place with what a checkpoint has below `prefix`; the rest of it is ignored.

    sizes_of: what weights say of their network, called as in the config; what they do not say is absent. may_lack:
    names, `prefix` before, of tensors that may stay as they are; counts of batches always may. Raises WeightsMismatch.
    """
    own = {prefix + name: tensor for name, tensor in module.state_dict().items()}
    names = checkpoint.names
    weights = {name: tensor for name, tensor in checkpoint.weights.items() if name.startswith(prefix)}
    beside = [names[name] for name in checkpoint.weights if name not in weights]
    given: dict[str, Tensor] = {}
    resized: Counter[str] = Counter()
    for name in filter(weights.__contains__, own):
        given[name], what = resize(name, weights[name], own[name].shape) if resize else (weights[name], "")
        if what:
            resized[what] += 1
    lacking = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    left = [name for name in lacking if may_lack and may_lack.match(name)]
    other = [name for name in given if given[name].shape != own[name].shape]
    faults = {
        "missing": [checkpoint.to_file(name) for name in lacking if name not in left],
        "unexpected": [*(names[name] for name in weights if name not in own), *checkpoint.unknown],
        "of another shape": [f"{names[n]} {tuple(given[n].shape)} for {tuple(own[n].shape)}" for n in other],
        "with values that are not finite": [names[n] for n, t in given.items() if not torch.isfinite(t).all()],
    }
    if any(faults.values()):
        raise WeightsMismatch(
            "; ".join(
                [
                    *_differences(sizes_of(weights), sizes_of(own)),
                    *(listed(kind, found) for kind, found in faults.items() if found),
                ]
            )
        )
    module.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in given.items()}, strict=False)
    return Filled(list(given), left, resized, sorted([*checkpoint.ignored, *beside]))


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """In which sizes two networks differ."""
    return [
        f"{what} is {theirs.get(what, 'none')} in the file, {ours.get(what, 'none')} in the config"
        for what in ours | theirs
        if theirs.get(what) != ours.get(what)
    ]


def listed(kind: str, names: Sequence[str]) -> str:
    """Names of tensors for people, ascending, the first few of many."""
    more = f", ... ({len(names)} in all)" if len(names) > NAMES_SHOWN else ""
    return f"{kind}: {', '.join(sorted(names)[:NAMES_SHOWN])}{more}"


def grouped(names: Iterable[str], depth: int = 2) -> str:
    """Names for people: how many begin with the same `depth` parts, whatever of `weight` and `bias`."""
    layers = (name.removesuffix(".weight").removesuffix(".bias") for name in names)
    counts = Counter(".".join(layer.split(".")[:depth]) for layer in layers)
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in counts.items())
