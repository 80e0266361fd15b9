"""What a check of an oracle file is made of: the file, a tolerance, an output, a kind of file.

A check is a generator over one file. It feeds the file's inputs and weights to this project's code and yields an
`Output` for each stored result. Results that no check yields are not covered, and are listed as such.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Oracle:
    """One .npz file: arrays by key (`group/name`), the settings they were made with in `cfg`."""

    def __init__(self, path: Path):
        arrays = np.load(path, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it is no .npz archive")
        self._arrays, self.keys = arrays, arrays.files

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def array(self, key: str) -> np.ndarray:
        if key not in self._arrays:
            raise KeyError(f"the file has no {key}")
        return self._arrays[key]

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.array(self.array(key)))

    def below(self, prefix: str) -> list[str]:
        """The keys that start with `prefix`, without it."""
        return [key.removeprefix(prefix) for key in self.keys if key.startswith(prefix)]

    def state(self, prefix: str = "sd/") -> dict[str, Tensor]:
        """The tensors below `prefix`."""
        return {name: self[prefix + name] for name in self.below(prefix)}

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads(str(self.array("cfg")))


# What a file's settings hold beside those of the public code.
_REMARKS = ("variant", "seed", "batch")


def public(settings: dict[str, Any], momentum: float = 0.1) -> dict[str, Any]:
    """A file's settings of one part as the public code has them: without remarks, and a norm's eps in its place.

    momentum: of the norm, which files do not say.
    """
    kept = {name: value for name, value in settings.items() if name not in (*_REMARKS, "norm_eps")}
    if "norm_eps" in settings:
        kept["norm_cfg"] = {"type": "BN", "eps": settings["norm_eps"], "momentum": momentum}
    return kept


@dataclass(frozen=True)
class Tolerance:
    """A value is right within `absolute` + `relative` * |wanted| + `of_max` * the largest |wanted| of the output; an
    output is right if at least `share` of its values are.

    bf16: where the networks run in bfloat16 an output is right if the norm of its error is at most so much of the
    wanted values' norm. (A value has 8 bits there: each rounding is up to 0.4 % of it.) None for data: nothing changes.
    """

    absolute: float = 0.0
    relative: float = 0.0
    of_max: float = 0.0
    share: float = 1.0
    bf16: float | None = None

    def limits(self, size: np.ndarray) -> np.ndarray:
        """The largest error of each value, from their wanted sizes."""
        return self.absolute + self.relative * size + self.of_max * size.max()

    def __str__(self) -> str:
        parts = ((self.absolute, ""), (self.relative, " relative"), (self.of_max, " of max"))
        text = " + ".join(f"{value:.2g}{unit}" for value, unit in parts if value) or "equal"
        return text if self.share == 1 else f">= {100 * self.share:.4g}% within {text}"


EQUAL = Tolerance()


class Output(NamedTuple):
    """What came out, and what should have.

    name: the key of the stored array or a pattern of several, then perhaps a space and a remark. wanted: the file's
    array of that key where None; an output that the file does not have is passed over.
    """

    name: str
    got: Any
    tolerance: Tolerance
    wanted: Any = None


Check = Callable[[Oracle], Iterator[Output]]


class Kind(NamedTuple):
    """A kind of oracle file.

    marks: keys that only such files have all of. inputs: patterns of the keys that are inputs or remarks, not results.
    checks: one after the other; what one of them raises does not stop the next. No checks: not covered.
    """

    name: str
    marks: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()


def as_array(value: Any) -> np.ndarray:
    if not isinstance(value, Tensor):
        return np.asarray(value)
    return (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()


def leading(value: Any, oracle: Oracle, key: str) -> Any:
    """The corner of `value` that is stored under `key` (first images, first channels); whole where it is not."""
    return value[tuple(map(slice, oracle.array(key).shape))] if key in oracle else value


def norms(
    oracle: Oracle, prefix: str, gradients: dict[str, Tensor | None], relative: float, bf16: float
) -> Iterator[Output]:
    """The stored norms `prefix + name` against those of the gradients of these names, without norms below 1e-6.

    Those are biases before a batch norm: nothing but rounding.
    """
    names = [name for name in oracle.below(prefix) if float(oracle.array(prefix + name)) >= 1e-6]
    if not names:
        return
    if missing := [name for name in names if gradients.get(name) is None]:
        raise ValueError(f"no gradient for {', '.join(missing)}")
    wanted = [float(oracle.array(prefix + name)) for name in names]
    got = [float(gradients[name].norm()) for name in names]
    yield Output(f"{prefix}*", got, Tolerance(relative=relative, bf16=bf16), wanted)


@contextmanager
def recorded(modules: dict[str, nn.Module]) -> Iterator[dict[str, Any]]:
    """The last output of each module while the context lasts, by the given names."""
    seen: dict[str, Any] = {}

    def keep(name: str) -> Callable:
        return lambda module, inputs, output: seen.__setitem__(name, output)

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
