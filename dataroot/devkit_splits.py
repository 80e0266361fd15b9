"""The devkit's own lists of scenes, without NumPy: a simulated world's config needs their names alone."""

import ast
from importlib.util import find_spec
from pathlib import Path


def devkit_splits() -> dict[str, list[str]]:
    """The scenes of each split by the devkit's name for it: what its `create_splits_scenes` returns.

    Read from its source: to import it takes seconds, of all of the devkit, pandas and scikit-learn.
    """
    (package,) = find_spec("nuscenes").submodule_search_locations  # type: ignore[union-attr, misc]  # it is installed
    statements = ast.parse((Path(package) / "utils" / "splits.py").read_text()).body
    lists = {
        statement.targets[0].id: ast.literal_eval(statement.value)
        for statement in statements
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and isinstance(statement.value, ast.List)
    }
    return lists | {"train": sorted({*lists["train_detect"], *lists["train_track"]})}
