"""What a file of weights was made with: kept whole in its metadata, and compared before it is used.

Weights that load into a network of equal shapes can still mean something else in it: on another grid, with another eps,
with boxes said in another frame.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import Any

# Fields of the networks' specs that files have under the name that they had first.
_WRITTEN = {"bev_range": "range", "point_range": "range"}


def plain(value: Any) -> Any:
    """Dataclasses, tuples and models as JSON has them."""
    return json.loads(json.dumps(value, default=_fields))


def _fields(spec: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(spec):
        raise TypeError(f"{spec!r} is no spec")
    return {_WRITTEN.get(field.name, field.name): getattr(spec, field.name) for field in dataclasses.fields(spec)}


def first_difference(
    then: Any, now: Any, apart_from: Collection[str] = (), place: str = ""
) -> tuple[str, Any, Any] | None:
    """Where two plain values differ first, as `a.b.c`, and what stands there in each; None where they do not.

    apart_from: places that may differ. A key that one of them lacks stands there as None.
    """
    if place in apart_from:
        return None
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in {**now, **then}:
            inner = f"{place}.{key}" if place else key
            if found := first_difference(then.get(key), now.get(key), apart_from, inner):
                return found
        return None
    return None if then == now else (place, then, now)
