"""Which files an mmdet3d config is made of: itself and all that it inherits from by `_base_`."""

import ast
from pathlib import Path
from typing import TypeGuard

from common.errors import UserError

REMEDY = "write the whole config into one file (mmengine's `Config.dump` does)"


def config_files(path: Path) -> list[Path]:
    """The file, then the files that it and they name as `_base_` (a path or a list of them), each once.

    The new style (`with read_base(): from .base import *`) is followed too. Read, not run: what only running the file
    tells raises UserError, and so does `_base_` in a file of YAML or JSON.
    """
    found, todo = [], [path.resolve()]
    while todo:
        file = todo.pop(0)
        if file in found:
            continue
        found.append(file)
        todo += [(file.parent / base).resolve() for base in _bases(file)] if file.is_file() else []
    return found


def _bases(file: Path) -> list[str]:
    text = file.read_bytes()
    if file.suffix != ".py":
        if b"_base_" in text:
            raise UserError(
                f"teacher.mmdet3d: {file}: inherits by _base_, which is followed in .py files alone; {REMEDY}"
            )
        return []
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []  # whoever reads it as a config says what is wrong with it
    bases: list[str] = []
    seen: set[ast.AST] = set()
    for node in tree.body:
        if isinstance(node, ast.With) and _reads_bases(node):
            bases += [_imported(file, statement) for statement in node.body]
            seen.add(node)
        elif isinstance(node, ast.Assign) and any(_is_base(target) for target in node.targets):
            bases += _listed(file, node.value)
            seen.update(node.targets)
    for inner in ast.walk(tree):
        if inner not in seen and (_is_base(inner) or (isinstance(inner, ast.With) and _reads_bases(inner))):
            raise UserError(f"teacher.mmdet3d: {file}: inherits in line {inner.lineno}, not at its top level; {REMEDY}")
    return bases


def _is_base(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and node.id == "_base_" and isinstance(node.ctx, ast.Store)


def _reads_bases(node: ast.With) -> bool:
    return "read_base" in ast.unparse(node.items[0].context_expr)


def _listed(file: Path, value: ast.expr) -> list[str]:
    """The files that are assigned to `_base_`, relative to `file`."""
    try:
        told = ast.literal_eval(value)
        bases = [told] if isinstance(told, str) else list(told)
        if not all(isinstance(base, str) for base in bases):
            raise TypeError
    except (ValueError, TypeError):
        raise UserError(f"teacher.mmdet3d: {file}: its _base_ is no plain list of files; {REMEDY}") from None
    if any("::" in base for base in bases):
        raise UserError(f"teacher.mmdet3d: {file}: inherits from another package ({bases}); {REMEDY}")
    return bases


def _imported(file: Path, statement: ast.stmt) -> str:
    """The file that a relative import names, relative to `file`."""
    if not isinstance(statement, ast.ImportFrom) or not statement.level or not statement.module:
        raise UserError(f"teacher.mmdet3d: {file}: inherits by `{ast.unparse(statement)}`; {REMEDY}")
    return "../" * (statement.level - 1) + statement.module.replace(".", "/") + ".py"
