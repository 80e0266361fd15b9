"""A public config file as plain values: JSON, YAML, or OpenMMLab's Python, which is read here and never run.

Of a Python file the assignments to names are taken, one after the other: literals, `dict(...)`, names defined above,
arithmetic, subscripts, `len`, `range`, `list` and `tuple`. What else stands in it (loops, updates, imports) makes the
names that it touches unreadable; where one of those is wanted, the resolved config as JSON or YAML serves.
"""

import ast
import json
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tasks.errors import UserError

# What readers look for at the top of a config.
_WANTED = ("model", "data_config", "multi_adj_frame_id_cfg", "class_names", "object_classes", "test_pipeline")
_LONGEST, _LARGEST = 10_000, 1e15  # items of what arithmetic may make, and its numbers
_REMEDY = "give the resolved config as JSON or YAML (mmengine: Config.fromfile(FILE).dump('FILE.json'))"

_BINARY: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, Callable] = {"len": len, "list": list, "tuple": tuple, "range": range}


def read_public_config(path: Path) -> dict[str, Any]:
    """The values of a file by name. Raises UserError for one that is missing, no config, or cannot be read whole."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".py":
            return _Assignments(path, ast.parse(text)).wanted()
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a public config file") from None
    except (ValueError, SyntaxError, yaml.YAMLError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: is no config in JSON, YAML or Python, by its name's ending ({reason})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold sections such as `model:`, not a {type(values).__name__}")
    return values


class _Unreadable(Exception):
    """An expression that would have to be run."""


class _Assignments:
    """The names that a module's assignments define, and for the others why they cannot be told."""

    def __init__(self, path: Path, module: ast.Module):
        self._path, self._values, self._why = path, {}, {}
        for statement in module.body:
            self._take(statement)
        self._check_bases()

    def wanted(self) -> dict[str, Any]:
        """Name -> value. Raises UserError where one of those that readers look for could not be read."""
        for name in _WANTED:
            if name in self._why:
                why = f"cannot be told without running the file ({self._why[name]})"
                raise UserError(f"{self._path}: {name} {why}; {_REMEDY}")
        return {name: value for name, value in self._values.items() if name not in self._why}

    def _take(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if all(isinstance(target, ast.Name) for target in targets):
                self._assign([target.id for target in targets], statement)
                return
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            return  # a docstring
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return  # what it brings is not defined above, for those who name it
        for node in ast.walk(statement):  # an update, a loop: whatever it names may be another after it
            if isinstance(node, ast.Name):
                self._touched(node.id, f"line {statement.lineno} may change it")

    def _touched(self, name: str, why: str) -> None:
        """Nobody can tell what stands in a name any more, nor in those that hold the same list or dict."""
        value = self._values.get(name)
        self._why.setdefault(name, why)
        if isinstance(value, list | dict):
            for other in [other for other, held in self._values.items() if _holds(held, value)]:
                self._why.setdefault(other, why)

    def _assign(self, names: list[str], statement: ast.Assign | ast.AnnAssign) -> None:
        try:
            value = self._value(statement.value)
        except _Unreadable as error:
            self._why |= dict.fromkeys(names, f"line {statement.lineno}: {error}")
            return
        except (TypeError, ValueError, LookupError, ArithmeticError) as error:
            self._why |= dict.fromkeys(names, f"line {statement.lineno}: {' '.join(str(error).split())}")
            return
        for name in names:
            self._values[name] = value
            self._why.pop(name, None)

    def _check_bases(self) -> None:
        """Other files that the config inherits from are not read: their digests would be in no key."""
        bases = self._values.get("_base_", [])
        if "_base_" in self._why:
            raise UserError(f"{self._path}: _base_ cannot be told ({self._why['_base_']}); {_REMEDY}")
        for base in [bases] if isinstance(bases, str) else bases:
            parts = Path(str(base)).parts
            if "_base_" not in parts or "models" in parts:
                raise UserError(f"{self._path}: inherits from {base}, which may hold parts of the model; {_REMEDY}")

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                if node.id in self._why or node.id not in self._values:
                    raise _Unreadable(f"{node.id} is {self._why.get(node.id, 'not defined above')}")
                return self._values[node.id]
            case ast.List() | ast.Tuple():
                items = [self._value(item) for item in node.elts]
                return items if isinstance(node, ast.List) else tuple(items)
            case ast.Dict() if None not in node.keys:
                return {self._value(key): self._value(value) for key, value in zip(node.keys, node.values)}
            case ast.Subscript():
                return self._value(node.value)[self._index(node.slice)]
            case ast.UnaryOp(op=ast.USub()):
                return -self._value(node.operand)
            case ast.BinOp() if type(node.op) in _BINARY:
                return self._binary(node)
            case ast.Call(func=ast.Name(id="dict")) if all(word.arg for word in node.keywords) and len(node.args) < 2:
                return {**(self._value(node.args[0]) if node.args else {}), **self._keywords(node)}
            case ast.Call(func=ast.Name()) if node.func.id in _FUNCTIONS and not node.keywords:
                return self._call(node)
        raise _Unreadable(f"`{ast.unparse(node)[:60]}`")

    def _keywords(self, node: ast.Call) -> dict[str, Any]:
        return {word.arg: self._value(word.value) for word in node.keywords}

    def _index(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Slice):
            return slice(*(None if part is None else self._value(part) for part in (node.lower, node.upper, node.step)))
        return self._value(node)

    def _binary(self, node: ast.BinOp) -> Any:
        left, right = self._value(node.left), self._value(node.right)
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if not numbers and not (isinstance(node.op, ast.Add) and type(left) is type(right)):
            raise _Unreadable(f"`{ast.unparse(node)[:60]}`")
        made = _BINARY[type(node.op)](left, right)
        if abs(made) > _LARGEST if numbers else len(made) > _LONGEST:
            raise _Unreadable(f"`{ast.unparse(node)[:60]}` is too much")
        return made

    def _call(self, node: ast.Call) -> Any:
        arguments = []
        for argument in node.args:
            starred = isinstance(argument, ast.Starred)
            arguments += self._value(argument.value) if starred else [self._value(argument)]
        made = _FUNCTIONS[node.func.id](*arguments)
        if isinstance(made, range) and len(made) > _LONGEST:
            raise _Unreadable(f"a range of {len(made)} numbers")
        return made


def _holds(value: Any, sought: list | dict) -> bool:
    """Whether `sought` itself, not its like, is in `value`."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return value is sought or any(_holds(item, sought) for item in inside)
