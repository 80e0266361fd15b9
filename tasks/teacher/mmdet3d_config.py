"""Which files an mmdet3d config is made of: itself and all that it inherits from by `_base_`."""

import ast
from pathlib import Path

from tasks.errors import UserError


def config_files(path: Path) -> list[Path]:
    """The file, then the files that it and they name as `_base_` (a path or a list of them), each once.

    The new style (`with read_base(): from .base import *`) is followed too. Read, not run: what only running the file
    tells raises UserError.
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
    remedy = "write the whole config into one file (mmengine's `Config.dump` does)"
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return []  # whoever reads it as a config says what is wrong with it
    for node in tree.body:
        if isinstance(node, ast.With) and "read_base" in ast.unparse(node.items[0].context_expr):
            return [_imported(file, statement, remedy) for statement in node.body]
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "_base_" for t in node.targets):
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                raise UserError(f"teacher.mmdet3d: {file}: its _base_ is no plain list of files; {remedy}") from None
            bases = [value] if isinstance(value, str) else list(value)
            if any("::" in base for base in bases):
                raise UserError(f"teacher.mmdet3d: {file}: inherits from another package ({bases}); {remedy}")
            return bases
    return []


def _imported(file: Path, statement: ast.stmt, remedy: str) -> str:
    """The file that a relative import names, relative to `file`."""
    if not isinstance(statement, ast.ImportFrom) or not statement.level or not statement.module:
        raise UserError(f"teacher.mmdet3d: {file}: inherits by `{ast.unparse(statement)}`; {remedy}")
    return "../" * (statement.level - 1) + statement.module.replace(".", "/") + ".py"
