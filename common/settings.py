"""The base of every stage's config: frozen, strict about names, and clear about what decides the result."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

PROJECT = Path(__file__).resolve().parents[1]


class Settings(BaseModel):
    """A frozen config in which an unknown field is an error.

    Fields declared with `runtime(...)` say how to compute, not what (worker counts, devices): they stay out of the key.
    Fields declared with `external_file(...)` may name a file: the key holds its digest instead of its path. A relative
    path that leads nowhere from the working folder is tried from the project's, so that what it ships is found.
    Fields declared with `later(...)` came after artifacts had been made: at their default they stay out of the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _shipped(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        found = {}
        for name, field in cls.model_fields.items():
            value, words = given.get(name), _mark(field, "external_file")
            if words is not None and isinstance(value, str) and value not in words and not Path(value).exists():
                found[name] = str(PROJECT / value) if (PROJECT / value).is_file() else value
        return given | found

    def key_fields(self) -> dict[str, Any]:
        """The JSON-able fields that decide the result: what the stage's key is made of. A file stands as "file"."""
        out: dict[str, Any] = {}
        files = self.external_files()
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name in files:
                out[name] = "file"
            elif not _mark(field, "runtime") and not (_mark(field, "later") and value == field.default):
                out[name] = value.key_fields() if isinstance(value, Settings) else _plain(value)
        return out

    def external_files(self) -> dict[str, Path]:
        """Field name -> path, for the fields that name a file outside the artifact store."""
        out: dict[str, Path] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Settings):
                out |= {f"{name}.{inner}": path for inner, path in value.external_files().items()}
            elif (words := _mark(field, "external_file")) is not None and value is not None and value not in words:
                out[name] = Path(value)
        return out


def runtime(default: Any, description: str, **limits: Any) -> Any:
    """A field that changes how a stage runs but not what it computes."""
    return Field(default, description=description, json_schema_extra={"runtime": True}, **limits)


def later(default: Any, description: str) -> Any:
    """A field whose default gives what was given before there was the field: it must not move the keys of that."""
    return Field(default, description=description, json_schema_extra={"later": True})


def external_file(default: Any, description: str, words: tuple[str, ...] = ()) -> Any:
    """A field that holds a file's path, or one of `words`, which name no file."""
    return Field(default, description=description, json_schema_extra={"external_file": list(words)})


def _mark(field: FieldInfo, name: str) -> Any:
    extra = field.json_schema_extra
    return extra.get(name) if isinstance(extra, dict) else None


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return str(value) if isinstance(value, Path) else value
