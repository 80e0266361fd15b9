"""The text of a public config as plain values: JSON, YAML, or OpenMMLab's Python, which is read here and never run.

Of a Python file the assignments to names are taken, one after the other: literals, `dict(...)`, names defined above,
arithmetic, subscripts, `len`, `range`, `list` and `tuple`; and, as BEVDet's files have it, `x[key].update(section)`,
alone or in a loop over a list. What else stands in it makes unreadable what it names, and all that holds a list or a
section of that; where one of those is wanted, the resolved config as JSON or YAML serves.
"""

import ast
import json
import operator
import os.path
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError

# What readers look for at the top of a config.
_WANTED = ("model", "data_config", "multi_adj_frame_id_cfg", "class_names", "object_classes", "test_pipeline")
_LONGEST, _LARGEST = 10_000, 1e15  # items of what arithmetic may make, and its numbers
_REMEDY = (
    "give the resolved config as JSON or YAML "
    "(mmengine: Config.fromfile(FILE, import_custom_modules=False).dump('FILE.json'))"
)

_BINARY: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, Callable] = {"len": len, "list": list, "tuple": tuple, "range": range}
_REACH_ALL = {"exec", "eval", "globals", "locals", "vars"}  # functions that may change any name


class _Loader(yaml.SafeLoader):
    """YAML's plain values, and tuples as mmengine's `Config.dump` writes them."""


def _tuple(loader: _Loader, node: yaml.SequenceNode) -> tuple:
    return tuple(loader.construct_sequence(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def parse(text: str, path: Path) -> Any:
    """What a file's text holds; its kind is told by the ending of `path`.

    Raises UserError where a part that readers look for could not be told without running the file, and ValueError,
    SyntaxError, yaml.YAMLError, RecursionError or MemoryError where the text is none of its kind.
    """
    if path.suffix == ".py":
        return _Assignments(path, ast.parse(text)).wanted()
    return json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)


class _Unreadable(Exception):
    """An expression that would have to be run."""


class _Assignments:
    """The names that a module's assignments define, and for the others why they cannot be told."""

    def __init__(self, path: Path, module: ast.Module):
        self._path = path
        self._values: dict[str, Any] = {}
        self._why: dict[str, str] = {}
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
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            if statement.value is None:
                return  # a type alone
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if len(names) == len(targets):
                self._assign(names, statement.value, statement.lineno)
                return
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            return  # a docstring
        try:
            self._run(statement)
        except (_Unreadable, TypeError, ValueError, LookupError, ArithmeticError):
            self._touched(statement, f"line {statement.lineno} may change it")

    def _run(self, statement: ast.stmt) -> None:
        """An update, or a loop of updates; _Unreadable for all else."""
        match statement:
            case ast.Expr(ast.Call(func=ast.Attribute(value=updated, attr="update"), args=[section], keywords=[])):
                old, new = self._value(updated), self._value(section)
                if not isinstance(old, dict) or not isinstance(new, dict) or id(old) in _inside(new):
                    raise _Unreadable
                old.update(new)
            case ast.For(target=ast.Name(id=name), orelse=[]) if all(isinstance(s, ast.Expr) for s in statement.body):
                items = self._value(statement.iter)
                if not isinstance(items, list | tuple) or len(items) > _LONGEST:
                    raise _Unreadable
                for item in items:
                    self._set([name], item)
                    for inner in statement.body:
                        self._run(inner)
            case _:
                raise _Unreadable

    def _touched(self, node: ast.AST, why: str, rebound: bool = True) -> None:
        """Nobody can tell any more what stands in the lists and dicts of a piece of code's names, whoever holds them;
        nor, where they may be rebound, in these names."""
        names = _names(node)
        if not names.isdisjoint(_REACH_ALL | {"*"}):
            names, rebound = names | self._values.keys(), True
        touched = _inside([self._values[name] for name in names if name in self._values])
        others = {name for name, held in self._values.items() if not touched.isdisjoint(_inside(held))}
        self._why |= {name: why for name in (names | others if rebound else others) if name not in self._why}

    def _set(self, names: list[str], value: Any) -> None:
        for name in names:
            self._values[name] = value
            self._why.pop(name, None)

    def _assign(self, names: list[str], value: ast.expr, line: int) -> None:
        try:
            self._set(names, self._value(value))
        except (_Unreadable, TypeError, ValueError, LookupError, ArithmeticError) as error:
            self._called(value)
            # What it holds of the names in it is kept: who changes that changes them too.
            held = [self._values[name] for name in _names(value) if name in self._values]
            self._set(names, held)
            self._why |= dict.fromkeys(names, f"line {line}: {' '.join(str(error).split())}")

    def _called(self, node: ast.expr) -> None:
        """What is in the lists and dicts that an expression hands to functions cannot be told any more."""
        known = {*_FUNCTIONS, "dict"} - self._why.keys() - self._values.keys()
        for inner in ast.walk(node):
            names_anew = isinstance(inner, ast.NamedExpr)
            if names_anew or (isinstance(inner, ast.Call) and ast.unparse(inner.func) not in known):
                self._touched(inner, f"`{ast.unparse(inner)[:60]}` may change it", rebound=names_anew)

    def _check_bases(self) -> None:
        """Other files that the config inherits from are not read: their digests would be in no key."""
        if "_base_" in self._why:
            raise UserError(f"{self._path}: _base_ cannot be told ({self._why['_base_']}); {_REMEDY}")
        bases = self._values.get("_base_", [])
        for base in bases if isinstance(bases, list | tuple) else [bases]:
            parts = Path(os.path.normpath(str(base))).parts
            below = parts[parts.index("_base_") + 1 :] if "_base_" in parts else ()
            if below[:1] not in (("datasets",), ("schedules",), ("default_runtime.py",)):
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
                pairs = zip(node.keys, node.values)
                return {self._value(key): self._value(value) for key, value in pairs if key is not None}
            case ast.Subscript():
                return self._value(node.value)[self._index(node.slice)]
            case ast.UnaryOp(op=ast.USub()):
                return -self._value(node.operand)
            case ast.BinOp() if type(node.op) in _BINARY:
                return self._binary(node)
            case ast.Call(func=ast.Name(id=name)) if name in self._values or name in self._why:
                pass  # a function of the file's own, whatever its name
            case ast.Call(func=ast.Name(id="dict")) if all(word.arg for word in node.keywords) and len(node.args) < 2:
                return {**(self._value(node.args[0]) if node.args else {}), **self._keywords(node)}
            case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
                return self._call(_FUNCTIONS[name], node.args)
        raise _Unreadable(f"`{ast.unparse(node)[:60]}`")

    def _keywords(self, node: ast.Call) -> dict[str, Any]:
        return {word.arg: self._value(word.value) for word in node.keywords if word.arg}

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

    def _call(self, function: Callable, given: list[ast.expr]) -> Any:
        arguments: list[Any] = []
        for argument in given:
            arguments += self._value(argument.value) if isinstance(argument, ast.Starred) else [self._value(argument)]
        made = function(*arguments)
        if isinstance(made, range) and len(made) > _LONGEST:
            raise _Unreadable(f"a range of {len(made)} numbers")
        return made


def _inside(value: Any) -> set[int]:
    """Ids of the lists and dicts in a value, itself among them."""
    found, todo = set(), [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict | list):
            if id(one) in found:
                continue
            found.add(id(one))
        todo += one.values() if isinstance(one, dict) else one if isinstance(one, list | tuple) else ()
    return found


def _names(node: ast.AST) -> set[str]:
    """The names that a piece of code reads or defines; `*` for an import of whatever there is."""
    found = set()
    for inner in ast.walk(node):
        match inner:
            case ast.Name(id=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.alias(name=name, asname=asname):
                found.add(asname or name.partition(".")[0])
    return found
