"""Runs the cells of docs/look_inside.ipynb once more and keeps what they show.

python docs/look_inside.py           # of ./artifacts, which `make demo` leaves
python docs/look_inside.py FOLDER    # of FOLDER/artifacts

It needs no Jupyter: a cell is plain Python, and what Jupyter would show of it is its output, the value of its last
line and the pictures that it drew. In what is kept, paths begin at that folder.
"""

import ast
import base64
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot

NOTEBOOK = Path(__file__).with_suffix(".ipynb")
DPI = 72  # of the pictures that matplotlib draws


def run(notebook: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The notebook with the outputs that its cells have where `folder` holds the artifacts. Raises what a cell raises.

    The cells run in `folder`/docs, as Jupyter would run them in the notebook's own folder.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    matplotlib.use("Agg")  # pictures are kept, not shown
    here = Path.cwd()
    os.chdir(folder / "docs")
    try:
        cells = [*_run_all(notebook["cells"], names)]
    finally:
        os.chdir(here)
    text = json.dumps(cells).replace(f"{folder.resolve()}/", "")
    return notebook | {"cells": json.loads(text)}


def save(notebook: dict[str, Any], path: Path = NOTEBOOK) -> None:
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def _run_all(cells: list[dict[str, Any]], names: dict[str, Any]) -> Any:
    count = 0
    for cell in cells:
        if cell["cell_type"] == "code":
            count += 1
            outputs = _outputs("".join(cell["source"]), names, count)
            cell = cell | {"execution_count": count, "outputs": outputs}
        yield cell


def _outputs(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What Jupyter would show of a cell."""
    body, printed, value = ast.parse(source).body, io.StringIO(), None
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), f"cell {count}", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
    if value is not None:
        shown = {"data": _shown(value), "metadata": {}}
        outputs.append({"output_type": "execute_result", "execution_count": count, **shown})
    for number in pyplot.get_fignums():
        file = io.BytesIO()
        pyplot.figure(number).savefig(file, format="png", dpi=DPI, metadata={"Software": None})
        data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": ["<Figure>"]}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    pyplot.close("all")
    return outputs


def _shown(value: Any) -> dict[str, Any]:
    """A value by media type: a table, a picture, or how it is written."""
    data: dict[str, Any] = {}
    if hasattr(value, "_repr_html_"):
        data["text/html"] = _lines(value._repr_html_())
    elif hasattr(value, "_repr_jpeg_"):
        data["image/jpeg"] = base64.b64encode(value._repr_jpeg_()).decode()
        return data | {"text/plain": ["<a picture>"]}  # else its place in memory, another each time
    return data | {"text/plain": _lines(repr(value))}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    chosen = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    save(run(json.loads(NOTEBOOK.read_text()), chosen))
