"""The names of a network's tensors in a kind of file, and ours: one table, read both ways."""

from collections.abc import Iterable
from dataclasses import dataclass

from models.layouts.filling import WeightsMismatch

Rules = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Renaming:
    """rules: (theirs, ours). Of those that begin without a dot, the first that a name begins with is replaced there;
    ("", "") takes every name. Those that begin with a dot are then replaced, in their order, wherever they stand in the
    rest of the name."""

    rules: Rules

    def to_ours(self, name: str) -> str | None:
        """Our name of a tensor of the file; None for one that begins as no rule does."""
        return _renamed(name, self.rules)

    def to_theirs(self, name: str) -> str | None:
        """The other way round."""
        return _renamed(name, tuple((ours, theirs) for theirs, ours in self.rules))

    def read(self, names: Iterable[str]) -> dict[str, str]:
        """Our name -> the file's, of those that have one here, in their order.

        Raises WeightsMismatch where two of the file's get the same: one of them would be lost.
        """
        known: dict[str, str] = {}
        for theirs in names:
            ours = self.to_ours(theirs)
            if ours is None:
                continue
            if ours in known:
                raise WeightsMismatch(
                    f"{known[ours]} and {theirs} are both {ours}: it holds two networks under one name"
                )
            known[ours] = theirs
        return known


def _renamed(name: str, rules: Rules) -> str | None:
    begins = ((before, after) for before, after in rules if not before.startswith("."))
    first = next(((before, after) for before, after in begins if name.startswith(before)), None)
    if first is None:
        return None
    rest = name.removeprefix(first[0])
    for before, after in rules:
        if before.startswith("."):
            rest = rest.replace(before, after)
    return first[1] + rest
