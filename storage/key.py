"""Keys: the SHA-256 of the canonical JSON of everything that decides a stage's result.

Canonical: sorted names, no spaces, UTF-8, floats in Python's shortest form that reads back exactly, whole ones as
integers. A value without a stable form (NaN, a set, a path, an object) raises TypeError or ValueError instead of
giving a key that changes by itself.
"""

import hashlib
import json
import math
from typing import Any


def canonical_json(value: Any) -> str:
    """The one JSON text of `value`: None, bool, int, float, str, or lists, tuples and str-named dicts of these."""
    return json.dumps(_stable(value, "$"), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (64 hex digits) of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def diff(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Field -> (old, new) for every leaf in which two JSON values differ; a leaf on one side stands against None."""
    if isinstance(old, dict) and isinstance(new, dict):
        out: dict[str, tuple[Any, Any]] = {}
        for name in sorted(old.keys() | new.keys()):
            out |= diff(old.get(name), new.get(name), f"{path}.{name}" if path else name)
        return out
    return {} if old == new else {path: (old, new)}


def _stable(value: Any, where: str) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: {value} has no stable form in a key")
        # 1 and 1.0 are the same setting: YAML and the command line write either.
        return int(value) if value == int(value) and abs(value) < 2**53 else float(value)
    if isinstance(value, list | tuple):
        return [_stable(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise TypeError(f"{where}: a key's names must be text")
        return {name: _stable(v, f"{where}.{name}") for name, v in value.items()}
    raise TypeError(f"{where}: {type(value).__name__} has no stable form in a key")
