"""A public config, read strictly: a key that nobody reads is an error, never a setting without effect."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, overload

SMALLEST = 1e-3  # m: of a cell or a step
_REQUIRED, _LARGEST = object(), 1e9


class UnreadableConfig(ValueError):
    """A public config with a key that its reader does not know, or with a value that is not implemented here.

    The text is one sentence that names the key by its place in the config.
    """


class Used:
    """A section of a public config that remembers what was read of it.

        with Used(config, "model.pts_neck") as neck:
            widths = neck.integers("out_channels")

    At the end of the block, UnreadableConfig is raised for keys that were not read. A getter without a default raises
    it for a missing key, and every getter for a value of another kind. place: where the section stands in the config.
    """

    def __init__(self, values: Any, place: str):
        if not isinstance(values, Mapping):
            raise UnreadableConfig(f"{place or 'the config'} must be a section of keys, not {_shown(values)}")
        self._values, self._place = values, place
        self._read: set[str] = set()

    def __enter__(self) -> "Used":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None and (unknown := [str(key) for key in self._values if key not in self._read]):
            keys = ", ".join(self.at(key) for key in sorted(unknown))
            raise UnreadableConfig(f"nothing here knows what {keys} {'means' if len(unknown) == 1 else 'mean'}")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def at(self, key: str) -> str:
        """Where a key stands in the config."""
        return f"{self._place}.{key}" if self._place else key

    def value(self, key: str, default: Any = _REQUIRED) -> Any:
        """Whatever stands there."""
        self._read.add(key)
        if key not in self._values:
            if default is _REQUIRED:
                raise UnreadableConfig(f"{self.at(key)} is missing")
            return default
        found = self._values[key]
        if isinstance(found, str) and found.startswith("${"):
            raise UnreadableConfig(f"{self.at(key)} is a reference, {found}: give the config with all of them resolved")
        return found

    def fixed(self, key: str, only: Any, default: Any = _REQUIRED) -> None:
        """Read a key of which one value alone is implemented. default: what the public code takes where it is missing,
        `only` if not given."""
        found = self.value(key, only if default is _REQUIRED else default)
        if _plain(found) != _plain(only):
            raise UnreadableConfig(f"{self.at(key)} is {_shown(found)}: only {_shown(only)} is implemented here")

    def agrees(self, key: str, wanted: Any, where: str) -> None:
        """Read a key that repeats what stands elsewhere in the config, at `where`."""
        found, wanted = _plain(self.value(key)), _plain(wanted)
        if found != wanted:
            raise UnreadableConfig(f"{self.at(key)} is {_shown(found)}, but {where} is {_shown(wanted)}: one is wrong")

    def ignore(self, reasons: Mapping[str, str]) -> None:
        """Leave keys unread, for the reasons that are written beside them."""
        self._read.update(reasons)

    def section(self, key: str, default: Any = _REQUIRED) -> "Used":
        """A section in this one, to be opened with `with`."""
        return Used(self.value(key, default), self.at(key))

    def sections(self, key: str) -> list["Used"]:
        """A list of sections."""
        return [Used(one, f"{self.at(key)}[{i}]") for i, one in enumerate(self._list(key, _REQUIRED))]

    def number(self, key: str, default: Any = _REQUIRED, least: float | None = None) -> float:
        """A finite number; least: the smallest there is a meaning for."""
        return self._one(key, self.value(key, default), (int, float), "a number", least)

    def integer(self, key: str, default: Any = _REQUIRED, least: int = 1) -> int:
        return self._one(key, self.value(key, default), int, "a whole number", least)

    def flag(self, key: str, default: Any = _REQUIRED) -> bool:
        found = self.value(key, default)
        if not isinstance(found, bool):
            raise UnreadableConfig(f"{self.at(key)} must be true or false, not {_shown(found)}")
        return found

    @overload
    def numbers(
        self, key: str, count: Literal[2], default: Any = ..., least: float | None = None
    ) -> tuple[float, float]: ...
    @overload
    def numbers(
        self, key: str, count: Literal[3], default: Any = ..., least: float | None = None
    ) -> tuple[float, float, float]: ...
    @overload
    def numbers(
        self, key: str, count: Literal[6], default: Any = ..., least: float | None = None
    ) -> tuple[float, float, float, float, float, float]: ...
    @overload
    def numbers(
        self, key: str, count: int | None = None, default: Any = ..., least: float | None = None
    ) -> tuple[float, ...]: ...
    def numbers(
        self, key: str, count: int | None = None, default: Any = _REQUIRED, least: float | None = None
    ) -> tuple[float, ...]:
        """A list of finite numbers; count: how many there must be."""
        found = self._list(key, default)
        return self._counted(key, count, [self._one(key, one, (int, float), "numbers", least) for one in found])

    @overload
    def integers(self, key: str, count: Literal[2], default: Any = ..., least: int = 1) -> tuple[int, int]: ...
    @overload
    def integers(self, key: str, count: Literal[3], default: Any = ..., least: int = 1) -> tuple[int, int, int]: ...
    @overload
    def integers(self, key: str, count: int | None = None, default: Any = ..., least: int = 1) -> tuple[int, ...]: ...
    def integers(self, key: str, count: int | None = None, default: Any = _REQUIRED, least: int = 1) -> tuple[int, ...]:
        found = self._list(key, default)
        return self._counted(key, count, [self._one(key, one, int, "whole numbers", least) for one in found])

    def span(self, key: str) -> tuple[float, float, float]:
        """Low < high and a step (m) that is no larger than all of it."""
        low, high, step = self.numbers(key, 3)
        if not SMALLEST <= step <= (high - low) * (1 + 1e-6):
            raise UnreadableConfig(f"{self.at(key)} must be low < high and a step between, not {[low, high, step]}")
        return low, high, step

    def pair(self, key: str, least: float | None = None) -> tuple[float, float]:
        """x and y of a list that may have z too."""
        found = self.numbers(key, least=least)
        if len(found) < 2:
            raise UnreadableConfig(f"{self.at(key)} must have x and y, not {_shown(found)}")
        return found[0], found[1]

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self._one(key, one, str, "names") for one in self._list(key, _REQUIRED))

    def _list(self, key: str, default: Any) -> Sequence:
        found = self.value(key, default)
        if not isinstance(found, list | tuple):
            raise UnreadableConfig(f"{self.at(key)} must be a list, not {_shown(found)}")
        return found

    def _one(self, key: str, found: Any, kinds: Any, name: str, least: float | None = None) -> Any:
        if isinstance(found, bool) or not isinstance(found, kinds):
            raise UnreadableConfig(f"{self.at(key)} must be {name}, not {_shown(found)}")
        if not isinstance(found, str) and not abs(found) <= _LARGEST:  # infinite and undefined ones too
            raise UnreadableConfig(f"{self.at(key)} must be {name} that can be meant, not {_shown(found)}")
        if least is not None and found < least:
            raise UnreadableConfig(f"{self.at(key)} must be {name} of at least {least}, not {_shown(found)}")
        return found

    def _counted(self, key: str, count: int | None, found: list) -> tuple:
        if count is not None and len(found) != count:
            raise UnreadableConfig(f"{self.at(key)} must have {count} values, not {_shown(found)}")
        return tuple(found)


def _plain(value: Any) -> Any:
    """Lists for tuples, as JSON has them."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return value


def _shown(value: Any) -> str:
    text = repr(_plain(value))
    return text if len(text) <= 80 else text[:77] + "..."
