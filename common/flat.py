"""Nested values by one name each."""

from typing import Any


def flat(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """("a.b", value) of every value that is no dict, or an empty one, in order; of no dict at all ("", value)."""
    if not isinstance(values, dict) or (prefix and not values):
        return [(prefix, values)]
    return [pair for name, value in values.items() for pair in flat(value, f"{prefix}.{name}" if prefix else name)]
